"""Read subscribers and their notifications. Secrets and header values are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, select

from models import Notification, Subscriber
from pipeline.db.sizes import read_row
from pipeline.events.subscriptions import FILTERS
from pipeline.operations.queries.filters import Filters, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, Record, paginate

NOTIFICATION_STATES = ("pending", "delivered", "failed")
COLUMNS = (
    Subscriber.id,
    Subscriber.url,
    Subscriber.events,
    Subscriber.filters,
    Subscriber.with_result,
    Subscriber.headers,
    Subscriber.enabled,
    Subscriber.reason,
    Subscriber.created_at,
)
NOTIFICATION_COLUMNS = (
    Notification.id,
    Notification.event,
    Notification.state,
    Notification.attempts,
    Notification.delivery_id,
    Notification.payload,
    Notification.created_at,
    Notification.delivered_at,
)


def list_subscribers(
    connection: Connection, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return subscribers, newest first."""
    page = paginate(connection, select(*COLUMNS), [Subscriber.id], limit=limit, cursor=cursor)
    return Page([without_secrets(row) for row in page.rows], page.next_cursor)


def get_subscriber(connection: Connection, subscriber_id: UUID) -> Record:
    """Return one subscriber. Raises NotFound."""
    statement = select(*COLUMNS).where(Subscriber.id == subscriber_id)
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no subscriber {subscriber_id} is known")
    return without_secrets(row)


def without_secrets(row: Mapping[Any, Any]) -> Record:
    """Return a subscriber's row with the names of its headers only, and each of its filters as a list."""
    filters = {name: (row["filters"] or {}).get(name, []) for name in FILTERS}
    return {**row, **filters, "headers": sorted(row["headers"] or {})}


def list_notifications(
    connection: Connection,
    subscriber_id: UUID,
    filters: Filters,
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page:
    """Return the notifications of one subscriber, newest first. Filters: state, event. Raises NotFound."""
    get_subscriber(connection, subscriber_id)
    statement = select(*NOTIFICATION_COLUMNS).where(
        Notification.subscriber_id == subscriber_id, *equal(Notification, ("state", "event"), filters)
    )
    return paginate(connection, statement, [Notification.id], limit=limit, cursor=cursor)


def get_notification(connection: Connection, notification_id: UUID) -> Record:
    """Return one notification. Raises NotFound."""
    row = read_row(connection, _NOTIFICATION, id=notification_id)
    if row is None:
        raise NotFound(f"no notification {notification_id} is known")
    return row


_NOTIFICATION = select(*NOTIFICATION_COLUMNS).where(Notification.id == bindparam("id"))
