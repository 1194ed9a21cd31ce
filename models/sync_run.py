"""One pass through Scale's list of tasks, or through a file of exported tasks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class SyncRun(Base):
    """Progress is stored after each page, so that an interrupted run is resumed."""

    __tablename__ = "sync_runs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """UUIDv7: its order is the order of the runs."""
    kind: Mapped[str] = mapped_column(String(16))
    """reconcile | import"""
    requested_by: Mapped[str] = mapped_column(String(16))
    """schedule | person"""
    environment: Mapped[str] = mapped_column(String(8))
    project: Mapped[str | None]
    """Only the tasks of this project."""
    file_digest: Mapped[str | None] = mapped_column(String(64))
    """Of an import: sha256 of the file."""
    since: Mapped[datetime | None]
    """Only tasks that changed since then."""
    started_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    """Null while the run is in progress or was interrupted."""
    position: Mapped[dict[str, Any]]
    """Where the next page begins, as filters of the list."""
    total: Mapped[int | None]
    """Tasks as Scale counts them."""
    seen: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    missing: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    stale: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    repaired: Mapped[int] = mapped_column(default=0, server_default=text("0"))

    __table_args__ = (Index("ix_sync_runs_kind", "kind", "environment", "id"),)
