"""Who wants to hear of what: outbound webhooks, registered by people and cached by every process for a moment."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, delete, select, update

from config import Settings
from models import Notification, Subscriber
from pipeline.access.audit import log_action
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, utcnow
from pipeline.http.client import DownloadRefused, check_allowed
from pipeline.jobs import queue
from pipeline.jobs.kinds import NOTIFY

EVENTS: Mapping[str, str] = {
    "delivery": "delivery.received: the bytes of each callback, passed on as they came",
    "task": "task.completed, .accepted, .rejected, .fixed, .commented, .recalled, .error, .canceled: a task as Scale tells it",
    "response": "response.received: a new response of a task",
    "follow-up": "follow-up.planned, .held, .created, .completed, .error, .canceled, .failed, .skipped",
    "workflow": "workflow.finished: everything that followed from a first task has come to an end",
    "test": "test.sent: asked for by a person",
}
"""Groups of events; a subscriber names groups, or single events."""
DELIVERY, TASK, RESPONSE, FOLLOW_UP, WORKFLOW, TEST = EVENTS
CACHE_SECONDS = 2.0


class InvalidSubscriber(Exception):
    """A subscriber can't be registered so. args[0] says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Subscription:
    id: UUID
    events: tuple[str, ...]

    def matches(self, event: str) -> bool:
        return event in self.events or event.partition(".")[0] in self.events


Subscriptions = tuple[Subscription, ...]


def read_subscriptions(reader: Engine) -> Subscriptions:
    """Return the enabled subscriptions in a transaction of their own."""
    with reader.begin() as connection:
        return load_subscriptions(connection)


def load_subscriptions(connection: Connection) -> Subscriptions:
    """Return the enabled subscriptions."""
    columns = (Subscriber.id, Subscriber.events)
    rows = connection.execute(select(*columns).where(Subscriber.enabled.is_(True)).order_by(Subscriber.id))
    return tuple(Subscription(row.id, tuple(row.events)) for row in rows)


def has_subscriber(subscriptions: Subscriptions, group: str) -> bool:
    """Whether somebody matches some event of a group: asked before anything is written for them."""
    return any(event.partition(".")[0] == group for one in subscriptions for event in one.events)


# What people do with them. Each is written to the audit log.


def add(
    connection: Connection,
    settings: Settings,
    actor: str,
    url: str,
    events: Sequence[str],
    *,
    secret: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Register a subscriber; its row, whose secret is shown this once. Raises Unfit."""
    unknown = [event for event in events if event.partition(".")[0] not in EVENTS]
    if unknown or not events:
        said = f"no event is called {', '.join(unknown)}" if unknown else "no event is named"
        raise InvalidSubscriber(f"{said}; there is {', '.join(EVENTS)}, and each event of these")
    try:
        check_allowed(url, settings.subscriber_hosts)
    except DownloadRefused as refused:
        raise InvalidSubscriber(f"{refused}: SUBSCRIBER_HOSTS names whom this service may tell") from None
    for name, value in (headers or {}).items():
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or not re.fullmatch(r"[ -~]{0,1000}", value):
            raise InvalidSubscriber(
                f"{name!r} can't be a header: its name has letters, digits and -, its value one line of ASCII"
            )
    row = {
        "id": new_id(),
        "url": url,
        "events": list(dict.fromkeys(events)),
        "secret": secret or f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "headers": dict(headers or {}) or None,
        "enabled": True,
        "created_at": utcnow(),
    }
    _check(str(row["secret"]))
    connection.execute(insert(connection, Subscriber).values(**row))
    log_action(connection, actor, "subscriber.add", str(row["id"]), {"url": url, "events": row["events"]})
    return {**row, "reason": None}


def _check(secret: str) -> None:
    """24 to 64 bytes in base64, after whsec_. Source: Standard Webhooks specification, "Signature scheme"."""
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except binascii.Error:
        size = 0
    if not secret.startswith("whsec_") or not 24 <= size <= 64:
        raise InvalidSubscriber(
            "a secret is whsec_ and 24 to 64 random bytes in base64; left out, one is made"
        )


def enable(connection: Connection, actor: str, subscriber_id: UUID, enabled: bool) -> None:
    """Tell it again, or no more. Raises LookupError."""
    statement = update(Subscriber).where(Subscriber.id == subscriber_id).values(enabled=enabled, reason=None)
    if not connection.execute(statement).rowcount:
        raise LookupError(f"there is no subscriber {subscriber_id}")
    log_action(connection, actor, f"subscriber.{'enable' if enabled else 'disable'}", str(subscriber_id))


def remove(connection: Connection, actor: str, subscriber_id: UUID) -> None:
    """Forget it, with its history. Raises LookupError."""
    if not connection.execute(delete(Subscriber).where(Subscriber.id == subscriber_id)).rowcount:
        raise LookupError(f"there is no subscriber {subscriber_id}")
    connection.execute(delete(Notification).where(Notification.subscriber_id == subscriber_id))
    log_action(connection, actor, "subscriber.remove", str(subscriber_id))


def replay(connection: Connection, actor: str, notification_id: UUID) -> list[UUID]:
    """Send a notification once more, under its own id, so that the receiver can tell. Raises LookupError."""
    again = update(Notification).where(Notification.id == notification_id).values(state="pending")
    if not connection.execute(again).rowcount:
        raise LookupError(f"there is no notification {notification_id}")
    log_action(connection, actor, "notification.replay", str(notification_id))
    return queue.enqueue(connection, NOTIFY, [str(notification_id)])
