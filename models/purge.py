"""Runtime state of purges: what is still to be deleted, and how far the daily purge of each class has come."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class PurgeLeftover(Base):
    """What a committed purge has marked and not deleted yet."""

    __tablename__ = "purge_leftovers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    responses: Mapped[list[Any]]
    """Ids of responses whose annotations are to be deleted."""
    files: Mapped[list[Any]]
    """Digests of contents that are deleted if no row refers to them."""


class RetentionRun(Base):
    """The newest purge of one class that a RETAIN_…_DAYS setting asked for."""

    __tablename__ = "retention_runs"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    """bodies | artifacts | rows"""
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    after: Mapped[UUID | None]
    """The last id that was looked at."""
    counts: Mapped[dict[str, Any] | None]
    """What it has emptied so far: a Count of pipeline/retention/purge.py."""
