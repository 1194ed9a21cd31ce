"""One POST as it was received, or one object from reconciliation or an import, and its bytes: the source of all other rows."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Delivery(Base):
    """One POST as it was received, or one task object of a reconciliation or an import: stored → processed | quarantined."""

    __tablename__ = "deliveries"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """UUIDv7: its order is the order of receipt."""
    kind: Mapped[str] = mapped_column(String(16))
    """callback | reconciled | imported"""
    may_create: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    """Whether follow-ups of its result are created without approval. False for imported and reconciled ones by default."""
    environment: Mapped[str] = mapped_column(String(8))
    """live | test"""
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    headers: Mapped[dict[str, Any]]
    """Request headers that help to find faults; never the key."""
    received_at: Mapped[datetime]
    clock: Mapped[datetime | None]
    """When the event happened by Scale's dates; the time of receipt without one. Null until the body was parsed."""
    status: Mapped[str] = mapped_column(String(16))
    """stored → processed | quarantined"""
    reason: Mapped[str | None]
    """Why it was quarantined."""
    event: Mapped[str | None] = mapped_column(String(32))
    task_id: Mapped[str | None]
    review: Mapped[dict[str, Any] | None]
    """{status, comments} as this delivery says."""
    warnings: Mapped[list[Any] | None]
    """Parts of the envelope that could not be parsed, as sentences."""
    duplicates: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    last_received_at: Mapped[datetime]
    dismissed_at: Mapped[datetime | None]
    """When a quarantined delivery was dismissed: health checks do not count it any more."""
    purged_at: Mapped[datetime | None]
    """When its body was purged: the bytes are gone, their digest and size stay."""

    __table_args__ = (
        UniqueConstraint("environment", "sha256"),
        Index("ix_deliveries_task_id", "task_id"),
        Index(
            "ix_deliveries_unprocessed",
            "status",
            "id",
            sqlite_where=text("status != 'processed'"),
            postgresql_where=text("status != 'processed'"),
        ),
    )


class DeliveryBody(Base):
    """The bytes of a delivery that was not purged. On PostgreSQL a partition holds those of a month: pipeline/db/months.py."""

    __tablename__ = "delivery_bodies"

    delivery_id: Mapped[UUID] = mapped_column(primary_key=True)
    """No foreign key: both rows are written together, and a month of bodies is dropped at once."""
    body: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = ({"postgresql_partition_by": "RANGE (delivery_id)"},)
