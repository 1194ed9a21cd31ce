"""One run of a workflow over results that are already stored, by a job."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Backfill(Base):
    """Progress is stored with each result, so that an interrupted run is resumed and evaluates none twice."""

    __tablename__ = "backfills"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """UUIDv7: its order is the order of the runs."""
    workflow: Mapped[str]
    requested_by: Mapped[str]
    filters: Mapped[dict[str, Any]]
    """Which results: since, until, project, type, label, batch, tag, environment."""
    max_results: Mapped[int | None]
    """Results with new follow-ups after which it ends; null: no limit."""
    per_minute: Mapped[int | None]
    """Results that are evaluated a minute; null: as fast as possible."""
    state: Mapped[str] = mapped_column(String(16))
    """running | stopped | completed"""
    total: Mapped[int]
    """Results that the filters selected at the start."""
    position: Mapped[UUID | None]
    """`tasks.id` of the result that was evaluated last."""
    evaluated: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    not_ready: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Results whose files were still to be fetched."""
    failed: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Results on which planning itself failed; the log says why."""
    results: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Results with new follow-ups."""
    follow_ups: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """New follow-ups."""
    started_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_backfills_workflow", "workflow", "id"),)
