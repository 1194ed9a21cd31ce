"""One decision about all rows that match a filter, and how far it is."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class BulkAction(Base):
    """A decision about all rows that match a filter: running → completed | stopped."""

    __tablename__ = "bulk_actions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """UUIDv7: rows that are newer are not decided about."""
    action: Mapped[str] = mapped_column(String(32))
    """Name in pipeline/operations/bulk_actions.py."""
    filters: Mapped[dict[str, Any]]
    actor: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    """running → completed | stopped"""
    expected: Mapped[int]
    """Number of rows that the person saw and confirmed: no more are decided about."""
    cost: Mapped[str | None]
    """What the person saw about the cost."""
    done: Mapped[int]
    failed: Mapped[int]
    """Rows that could not be decided about, because they had changed meanwhile."""
    last_error: Mapped[str | None]
    after: Mapped[UUID | None]
    """Id of the last row that was decided about; they are taken in the order of their ids."""
    stopped_by: Mapped[str | None]
    created_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
