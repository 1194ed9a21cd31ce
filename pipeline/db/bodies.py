"""The bytes of a delivery, for everything that reads one as a whole."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, LargeBinary, func, select

from models import Delivery, DeliveryBody

CHUNK_BYTES = 4 * 1024 * 1024
"""PostgreSQL unpacks a compressed body from its beginning for each chunk."""


class BodyMissing(RuntimeError):
    """Raised when the bytes of a delivery that was not purged are not there, or not all of them."""

    def __init__(self, delivery_id: UUID) -> None:
        super().__init__(
            f"the body of delivery {delivery_id} is missing, and it was not purged; restore a backup"
        )


def read_body(connection: Connection, delivery_id: UUID) -> bytes | None:
    """Return the bytes of a delivery as they were received; None if they were purged, or there is no such delivery.

    They are read in chunks: as one value they would be in memory six times. Raises BodyMissing.
    """
    body = bytearray()
    while True:
        chunk = func.substr(DeliveryBody.body, len(body) + 1, CHUNK_BYTES, type_=LargeBinary).label("chunk")
        found = connection.execute(
            select(Delivery.purged_at, Delivery.size_bytes, DeliveryBody.delivery_id, chunk)
            .outerjoin(DeliveryBody, DeliveryBody.delivery_id == Delivery.id)
            .where(Delivery.id == delivery_id)
        ).one_or_none()
        if found is None or found.purged_at is not None:
            return None
        body += found.chunk or b""  # SQLite's substr() of an empty value is NULL
        if found.delivery_id is not None and len(body) >= found.size_bytes:
            return bytes(body)
        if not found.chunk:
            raise BodyMissing(delivery_id)
