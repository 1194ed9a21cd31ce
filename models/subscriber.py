"""Outbound webhooks: subscribers to events, and the notifications for each."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Subscriber(Base):
    """A receiver of outbound webhooks, with its signing secret."""

    __tablename__ = "subscribers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    url: Mapped[str]
    events: Mapped[list[Any]]
    """Names of events, or of their groups."""
    filters: Mapped[dict[str, Any] | None]
    """workflow, step, project → names of which an event must have one; null: none of them is filtered."""
    with_result: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether events of a task or a response carry its result."""
    secret: Mapped[str]
    """Standard Webhooks secret, whsec_…: it signs, so it is kept as it is."""
    headers: Mapped[dict[str, Any] | None]
    """Additional headers of each request, such as a key that the receiver requires; secret too."""
    enabled: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    reason: Mapped[str | None]
    """Why it was disabled, if not by a person."""
    created_at: Mapped[datetime]


class Notification(Base):
    """One event for one subscriber. It is delivered with retries until it is accepted or has failed."""

    __tablename__ = "notifications"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    subscriber_id: Mapped[UUID]
    event: Mapped[str] = mapped_column(String(64))
    key: Mapped[str]
    """Identifies the event, so that a subscriber receives it once."""
    payload: Mapped[dict[str, Any] | None]
    """The body; null for a raw delivery, whose bytes are sent as they came."""
    delivery_id: Mapped[UUID | None]
    state: Mapped[str] = mapped_column(String(16))
    """pending → delivered | failed"""
    attempts: Mapped[list[Any]]
    """Each {at, status, error, seconds}: the last of them, MAX_STORED_ATTEMPTS in pipeline/events/sending.py."""
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("subscriber_id", "key"),
        Index("ix_notifications_subscriber_id", "subscriber_id", "id"),
    )
