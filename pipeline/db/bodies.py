"""The bytes of a delivery, as a whole or in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import Connection, Engine, Integer, LargeBinary, Uuid, bindparam, func, select

from models import Delivery, DeliveryBody
from pipeline.db.compiled import fetch_one

CHUNK_BYTES = 8 * 1024 * 1024
"""PostgreSQL unpacks a compressed body from its beginning for each chunk."""

_CHUNK = (
    select(
        Delivery.purged_at,
        Delivery.size_bytes,
        DeliveryBody.delivery_id,
        func.substr(
            DeliveryBody.body, bindparam("start", type_=Integer), CHUNK_BYTES, type_=LargeBinary
        ).label("chunk"),
    )
    .outerjoin(DeliveryBody, DeliveryBody.delivery_id == Delivery.id)
    .where(Delivery.id == bindparam("id", type_=Uuid))
)


class BodyMissing(RuntimeError):
    """Raised when the bytes of a delivery that was not purged are not there, or not all of them."""

    def __init__(self, delivery_id: UUID) -> None:
        super().__init__(
            f"the body of delivery {delivery_id} is missing, and it was not purged; restore a backup"
        )


def stream_body(database: Connection | Engine, delivery_id: UUID, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a delivery from `start` on as they were received, in chunks; none if they were purged, or there is no
    such delivery.

    Given an engine, each chunk has a transaction of its own. Raises BodyMissing, also if they are purged meanwhile.
    """
    position = start
    while True:
        found = fetch_one(database, _CHUNK, {"id": delivery_id, "start": position + 1}, binary=True)
        if found is None or found["purged_at"] is not None:
            if position > start:
                raise BodyMissing(delivery_id)
            return
        chunk = found["chunk"] or b""  # SQLite's substr() of an empty value is NULL
        position += len(chunk)
        is_whole = found["delivery_id"] is not None and position >= found["size_bytes"]
        if not is_whole and len(chunk) < CHUNK_BYTES:
            raise BodyMissing(delivery_id)
        yield chunk
        if is_whole:
            return


def read_body(connection: Connection, delivery_id: UUID) -> bytes | None:
    """Return the bytes of a delivery as they were received; None if they were purged, or there is no such delivery.

    They are read in chunks: as one value they would be in memory six times. Raises BodyMissing.
    """
    body = None
    for chunk in stream_body(connection, delivery_id):
        body = body or bytearray()
        body += chunk
    return None if body is None else bytes(body)
