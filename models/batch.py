"""A Scale batch, as its callback or the API describes it."""

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Batch(Base):
    """The newest known state of one batch at Scale."""

    __tablename__ = "batches"

    environment: Mapped[str] = mapped_column(String(8), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str | None]
    status: Mapped[str | None]
    details: Mapped[dict[str, Any] | None]
    """The object as Scale sent it."""
    clock: Mapped[datetime | None]
