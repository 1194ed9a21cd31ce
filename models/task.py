"""A Scale task as its newest delivery describes it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base, prefix


class Task(Base):
    """One task at Scale, as its newest delivery describes it, and which response version is current."""

    __tablename__ = "tasks"

    task_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(unique=True)
    """UUIDv7 of its first delivery: lists are paged by it, newest first."""
    environment: Mapped[str] = mapped_column(String(8))
    type: Mapped[str | None]
    status: Mapped[str | None]
    """Scale's own word; it may go back."""
    project: Mapped[str | None]
    batch: Mapped[str | None]
    unique_id: Mapped[str | None]
    instruction: Mapped[str | None]
    urgency: Mapped[str | None]
    tags: Mapped[list[Any] | None]
    priority: Mapped[int | None] = mapped_column(BigInteger)
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    params: Mapped[dict[str, Any] | None]
    extra: Mapped[dict[str, Any] | None]
    """What else Scale's task object says and no column holds: attempts, document_pages, audits …"""
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    review_status: Mapped[str | None]
    review_comments: Mapped[list[Any] | None]
    reviewed_at: Mapped[datetime | None]
    callback_succeeded: Mapped[bool | None]

    clock: Mapped[datetime | None]
    clock_delivery_id: Mapped[UUID | None]
    """The newest delivery. (clock, delivery) orders deliveries from older to newer."""
    described_clock: Mapped[datetime | None]
    described_delivery_id: Mapped[UUID | None]
    """Order key of the newest delivery with a task object: the description comes from it."""
    recalled_clock: Mapped[datetime | None]
    recalled_delivery_id: Mapped[UUID | None]
    """Order key of the newest delivery that says pending: it withdraws every response up to it."""
    latest_response_id: Mapped[UUID | None]
    latest_response_clock: Mapped[datetime | None]
    latest_response_delivery_id: Mapped[UUID | None]
    """The version that the newest delivery with a response carries, recalled or not."""
    response_id: Mapped[UUID | None]
    """The current version: the latest one, unless a recall is newer."""
    response_count: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    replayed_at: Mapped[datetime | None]
    """When a person replayed a delivery of it: every workflow that is loaded then may follow it."""
    follow_up_unique_id: Mapped[str | None]
    """unique_id of the follow-up that created this task; `follow_up` in events."""
    purged_at: Mapped[datetime | None]
    """When its content and that of its responses were purged. Identity, status, digests and counts stay, and nothing later
    brings content back."""

    __table_args__ = (
        Index("ix_tasks_type", prefix("type"), "id"),
        Index("ix_tasks_project", prefix("project"), "id"),
        Index("ix_tasks_status", "status", "id"),
        Index("ix_tasks_batch", prefix("batch"), "id"),
        Index("ix_tasks_unique_id", prefix("unique_id")),
    )
