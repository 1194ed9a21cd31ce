"""A response version: one distinct `response` of a task. Written once; only its number, event and delivery are pointers."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base, Json, OpaqueJson


class Response(Base):
    """One response version: one distinct result of a task. Its annotations are rows of their own."""

    __tablename__ = "responses"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    task_id: Mapped[str]
    number: Mapped[int]
    """1, 2, … within the task, by Scale's clock: a version that is received late renumbers the later ones."""
    digest: Mapped[str] = mapped_column(String(64))
    """sha256 over the canonical form of the response."""
    event: Mapped[str] = mapped_column(String(32))
    delivery_id: Mapped[UUID]
    """The earliest delivery, by Scale's clock, that carries this version; `event` is its event."""
    clock: Mapped[datetime]
    received_at: Mapped[datetime]
    error: Mapped[dict[str, Any] | None]
    answer: Mapped[Any | None] = mapped_column(Json)
    """The response without its annotations, under Scale's keys."""
    response: Mapped[Any | None] = mapped_column(OpaqueJson)
    warnings: Mapped[list[Any] | None]
    """Parts that could not be parsed, as sentences."""
    annotation_count: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    artifact_count: Mapped[int] = mapped_column(default=0, server_default=text("0"))

    __table_args__ = (UniqueConstraint("task_id", "number"), UniqueConstraint("task_id", "digest"))
