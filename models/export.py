"""An export that was requested through the API."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Export(Base):
    """One export that was requested through the API or the console: waiting → running → completed | failed."""

    __tablename__ = "exports"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    format: Mapped[str] = mapped_column(String(32))
    dataset: Mapped[str | None]
    """name@version; null where `filters` choose the tasks."""
    filters: Mapped[dict[str, Any] | None]
    options: Mapped[dict[str, Any]]
    """{images, split, split_by, classes}, as they were given"""
    state: Mapped[str] = mapped_column(String(16))
    """waiting → running → completed | failed"""
    tasks_done: Mapped[int]
    tasks_total: Mapped[int | None]
    reason: Mapped[str | None]
    """Why it failed."""
    sha256: Mapped[str | None] = mapped_column(String(64))
    """Of the zip in the artifact store."""
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    report: Mapped[dict[str, Any] | None]
    """Its export.json without the list of files."""
    created_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
