"""A follow-up: one task that a workflow's step asks for. It is a row before it is a request."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base

HELD_BY_LIMIT = text("state = 'held' AND reason_code = 'limit'")
"""The condition of a partial index: queries repeat it literally."""
HELD_FOR_A_FILE = "state = 'held' AND reason_code = 'incomplete'"


class FollowUp(Base):
    """One task that a step of a workflow creates, from its planning to its result. `state` is documented at the column."""

    __tablename__ = "follow_ups"

    unique_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    id: Mapped[UUID] = mapped_column(unique=True)
    """UUIDv7 of the planning: lists are paged by it."""
    workflow: Mapped[str]
    workflow_digest: Mapped[str] = mapped_column(String(64))
    step: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    """planned → (held) → created → completed | error | canceled; or failed (Scale refused it); or skipped"""
    reason_code: Mapped[str | None] = mapped_column(String(16))
    """Why it is held, skipped or canceled, for programs: a ReasonCode of workflows/planning/reasons.py; null if no cause is
    recorded."""
    reason: Mapped[str | None]
    """The same for people. No program reads it."""
    attempt: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """1 for the first request, 2, 3 … for what `on_error: retry` creates as a replacement."""
    first_unique_id: Mapped[str | None] = mapped_column(String(200))
    """unique_id of the first attempt; null for a first attempt."""
    environment: Mapped[str] = mapped_column(String(8))
    source_task_id: Mapped[str]
    source_response_id: Mapped[UUID | None]
    source_annotation: Mapped[str | None]
    task_type: Mapped[str]
    request: Mapped[dict[str, Any]]
    """The body for Scale, without callback_url and unique_id, which are added when it is sent; null in place of each file."""
    files: Mapped[list[Any] | None]
    """The files of the request: [{path, recipe}]. Only plan() writes recipes; data cannot contain one."""
    task_id: Mapped[str | None]
    depth: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """Follow-ups between this one and the task that the customer created, itself included."""
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None]
    """Name of the person or token that decided, and the time of the decision."""
    notified_state: Mapped[str | None] = mapped_column(String(16))
    """The state that was published to subscribers last."""
    planned_at: Mapped[datetime]
    created_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_follow_ups_state", "state", "id"),
        Index(
            "ix_follow_ups_held_by_limit", "id", postgresql_where=HELD_BY_LIMIT, sqlite_where=HELD_BY_LIMIT
        ),
        Index("ix_follow_ups_source_task_id", "source_task_id"),
        Index("ix_follow_ups_task_id", "task_id"),
        Index("ix_follow_ups_step", "workflow", "step", "planned_at"),
        Index("ix_follow_ups_first_unique_id", "first_unique_id", "attempt"),
    )


class Join(Base):
    """The children of one fan-out that a later step waits for. Its row is locked before they are counted."""

    __tablename__ = "joins"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    """<workflow>.<step>.<source>: what the unique_ids of the join's own follow-ups begin with."""
    workflow: Mapped[str]
    step: Mapped[str]
    awaited_step: Mapped[str]
    """The step whose follow-ups are waited for."""
    source_task_id: Mapped[str]
    source_response_id: Mapped[UUID | None]
    """The response that was fanned out last."""
    source_annotation: Mapped[str | None]
    """With `over: copies` the element whose copies are joined."""
    per_response: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Only the follow-ups of that response are waited for: the fan-out is repeated for each."""
    expected: Mapped[int | None]
    """Follow-ups to wait for, retries not counted; null until the fan-out's plan has ended."""
    opened_at: Mapped[datetime]
    deadline: Mapped[datetime | None]
    fired_at: Mapped[datetime | None]
    verdict: Mapped[str | None] = mapped_column(String(8))
    """fire | hold | stop; null while it waits. `outcome` in the API."""
    conclusion: Mapped[str | None] = mapped_column(String(16))
    """agreed | disagreed | deadline; null while it waits, and where nothing can be compared. `verdict` in the API."""
    reason: Mapped[str | None]
    result: Mapped[dict[str, Any] | None]
    """What the reducer made of the results."""

    __table_args__ = (
        Index("ix_joins_opened_at", "opened_at", "id"),
        Index("ix_joins_source_task_id", "source_task_id"),
        Index("ix_joins_workflow", "workflow", "opened_at"),
    )
