"""The bytes of a delivery: whole, purged, or missing, which is an error that someone sees."""

from uuid import UUID

import pytest
from sqlalchemy import delete, update

from models import Delivery, DeliveryBody
from pipeline.db.bodies import BodyMissing, read_body
from pipeline.operations.queries.deliveries import stream_body
from pipeline.receive.replay import replay
from pipeline.service import Service
from tests.factories.callbacks import boxes, callback, receive_callback


def read(service: Service, delivery_id: UUID) -> bytes | None:
    with service.reader.begin() as connection:
        return read_body(connection, delivery_id)


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 40_000], ids=["empty", "small", "chunks"])
def test_a_body_is_read_as_it_was_received(service: Service, body: bytes) -> None:
    assert read(service, receive_callback(service, body).delivery_id) == body


def test_neither_a_purged_nor_an_unknown_delivery_has_a_body(service: Service) -> None:
    receipt = receive_callback(service, callback(boxes("car")))
    with service.engine.begin() as connection:
        connection.execute(update(Delivery).values(purged_at=Delivery.received_at))
    assert read(service, receipt.delivery_id) is None
    assert read(service, UUID(int=7)) is None


@pytest.mark.parametrize("left", [None, b"", b'{"task'])
def test_a_body_that_is_missing_without_a_purge_is_an_error(service: Service, left: bytes | None) -> None:
    receipt = receive_callback(service, callback(boxes("car")))
    lose = delete(DeliveryBody) if left is None else update(DeliveryBody).values(body=left)
    with service.engine.begin() as connection:
        connection.execute(lose)
    with pytest.raises(BodyMissing, match="was not purged"):
        replay(service, receipt.delivery_id, "ana")
    with pytest.raises(BodyMissing):
        next(stream_body(service.reader, receipt.delivery_id))
