"""The bytes of a delivery, for everything that reads one as a whole."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, Integer, LargeBinary, Uuid, bindparam, func, select

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


def read_body(connection: Connection, delivery_id: UUID) -> bytes | None:
    """Return the bytes of a delivery as they were received; None if they were purged, or there is no such delivery.

    They are read in chunks: as one value they would be in memory six times. Raises BodyMissing.
    """
    body = bytearray()
    while True:
        found = fetch_one(connection, _CHUNK, {"id": delivery_id, "start": len(body) + 1}, binary=True)
        if found is None or found["purged_at"] is not None:
            return None
        body += found["chunk"] or b""  # SQLite's substr() of an empty value is NULL
        if found["delivery_id"] is not None and len(body) >= found["size_bytes"]:
            return bytes(body)
        if not found["chunk"]:
            raise BodyMissing(delivery_id)
