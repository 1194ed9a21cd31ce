"""Subscribers to events: registered by people, and cached by every process for CACHE_SECONDS."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
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
from pipeline.jobs.rate_limits import clear_rate_limit

EVENTS: Mapping[str, str] = {
    "delivery": "delivery.received: the body of each callback, byte for byte",
    "task": "task.completed, .accepted, .rejected, .fixed, .commented, .recalled, .error, .canceled: an event of a task",
    "response": "response.received: a new response of a task",
    "follow-up": "follow-up.planned, .held, .created, .completed, .error, .canceled, .failed, .skipped",
    "join": "join.finished: a join was decided, with its members, verdict and reduced value",
    "workflow": "workflow.finished: everything that follows from a first task has finished",
    "test": "test.sent: requested by a person",
}
"""Groups of events; a subscriber names groups, or single events."""
DELIVERY, TASK, RESPONSE, FOLLOW_UP, JOIN, WORKFLOW, TEST = EVENTS
FILTERS = ("workflow", "step", "project")
"""What a subscriber can select events by, in addition to their names."""
CACHE_SECONDS = 2.0

About = Mapping[str, Collection[str | None]]
"""What an event is about: the names of its workflows, steps and projects, by FILTERS."""
NOTHING: About = MappingProxyType({})


class InvalidSubscriber(Exception):
    """Raised when a subscriber cannot be registered. The message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """The events that one subscriber receives."""

    id: UUID
    events: tuple[str, ...]
    filters: Mapping[str, Collection[str]] = field(default_factory=dict)  # by FILTERS

    def matches(self, event: str, about: About = NOTHING) -> bool:
        """Return whether the event, or its group, is subscribed to, and what it is about passes each filter."""
        if event not in self.events and event.partition(".")[0] not in self.events:
            return False
        return all(not set(names).isdisjoint(about.get(name, ())) for name, names in self.filters.items())


Subscriptions = tuple[Subscription, ...]


def read_subscriptions(reader: Engine) -> Subscriptions:
    """Return the enabled subscriptions in a transaction of their own."""
    with reader.begin() as connection:
        return load_subscriptions(connection)


def load_subscriptions(connection: Connection) -> Subscriptions:
    """Return the enabled subscriptions."""
    columns = (Subscriber.id, Subscriber.events, Subscriber.filters)
    rows = connection.execute(select(*columns).where(Subscriber.enabled.is_(True)).order_by(Subscriber.id))
    return tuple(Subscription(row.id, tuple(row.events), row.filters or {}) for row in rows)


def has_subscriber(subscriptions: Subscriptions, group: str) -> bool:
    """Return whether any subscription names the group or one of its events."""
    return any(event.partition(".")[0] == group for one in subscriptions for event in one.events)


def has_filter(subscriptions: Subscriptions, *names: str) -> bool:
    """Return whether any subscription filters by one of these names of FILTERS."""
    return any(name in one.filters for one in subscriptions for name in names)


# Registration. Every change is written to the audit log.


def add(
    connection: Connection,
    settings: Settings,
    actor: str,
    url: str,
    events: Sequence[str],
    *,
    filters: Mapping[str, Sequence[str]] | None = None,
    with_result: bool = False,
    secret: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Register a subscriber. Return its row, the only time that its secret is shown. Raises InvalidSubscriber."""
    selection = _selection(events, filters or {})
    try:
        check_allowed(url, settings.subscriber_hosts)
    except DownloadRefused as refused:
        raise InvalidSubscriber(f"{refused}; add the receiver's host to SUBSCRIBER_HOSTS") from None
    for name, value in (headers or {}).items():
        _check_header(name, value)
    row = {
        "id": new_id(),
        "url": url,
        **selection,
        "with_result": with_result,
        "secret": secret or f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "headers": dict(headers or {}) or None,
        "enabled": True,
        "created_at": utcnow(),
    }
    _check_secret(str(row["secret"]))
    connection.execute(insert(connection, Subscriber).values(**row))
    log_action(connection, actor, "subscriber.add", str(row["id"]), {"url": url, "events": row["events"]})
    return {**row, "reason": None}


def select_events(
    connection: Connection,
    actor: str,
    subscriber_id: UUID,
    events: Sequence[str],
    filters: Mapping[str, Sequence[str]],
) -> None:
    """Replace the events and the filters of a subscriber. Raises InvalidSubscriber and LookupError."""
    selection = _selection(events, filters)
    statement = update(Subscriber).where(Subscriber.id == subscriber_id).values(**selection)
    if not connection.execute(statement).rowcount:
        raise LookupError(f"there is no subscriber {subscriber_id}")
    log_action(connection, actor, "subscriber.select", str(subscriber_id), selection)


def _selection(events: Sequence[str], filters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the columns that say which events a subscriber receives. Raises InvalidSubscriber."""
    unknown = [event for event in events if event.partition(".")[0] not in EVENTS]
    if unknown or not events:
        problem = f"no event is called {', '.join(unknown)}" if unknown else "no event is named"
        raise InvalidSubscriber(f"{problem}; the groups are {', '.join(EVENTS)}, and single events of them")
    return {
        "events": list(dict.fromkeys(events)),
        "filters": {name: list(names) for name, names in filters.items() if names} or None,
    }


RESERVED_HEADERS = frozenset(
    """connection content-encoding content-length content-type expect host keep-alive proxy-authorization
    proxy-connection te trailer transfer-encoding upgrade""".split()  # noqa: SIM905
)
"""Headers that frame or route the request: a subscriber's own value could smuggle a second request to the receiver."""


def _check_header(name: str, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or not re.fullmatch(r"[ -~]{0,1000}", value):
        raise InvalidSubscriber(
            f"{name!r} can't be a header: use letters, digits and - in its name, and one line of ASCII as its value"
        )
    if name.lower() in RESERVED_HEADERS or name.lower().startswith("webhook-"):
        raise InvalidSubscriber(f"the header {name} is set by this service and can't be chosen")


def _check_secret(secret: str) -> None:
    """Check for whsec_ and 24 to 64 bytes in base64. Source: Standard Webhooks specification, "Signature scheme"."""
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except binascii.Error:
        size = 0
    if not secret.startswith("whsec_") or not 24 <= size <= 64:
        raise InvalidSubscriber(
            "a secret is whsec_ and 24 to 64 random bytes in base64; omit it to have one generated"
        )


def enable(connection: Connection, actor: str, subscriber_id: UUID, enabled: bool) -> None:
    """Enable or disable a subscriber. Raises LookupError."""
    statement = update(Subscriber).where(Subscriber.id == subscriber_id).values(enabled=enabled, reason=None)
    if not connection.execute(statement).rowcount:
        raise LookupError(f"there is no subscriber {subscriber_id}")
    log_action(connection, actor, f"subscriber.{'enable' if enabled else 'disable'}", str(subscriber_id))


def remove(connection: Connection, actor: str, subscriber_id: UUID) -> None:
    """Delete a subscriber with its notifications. Raises LookupError."""
    if not connection.execute(delete(Subscriber).where(Subscriber.id == subscriber_id)).rowcount:
        raise LookupError(f"there is no subscriber {subscriber_id}")
    connection.execute(delete(Notification).where(Notification.subscriber_id == subscriber_id))
    log_action(connection, actor, "subscriber.remove", str(subscriber_id))


def replay(connection: Connection, actor: str, notification_id: UUID) -> list[UUID]:
    """Deliver a notification again, under its own id, so that the receiver can deduplicate. Raises LookupError."""
    again = update(Notification).where(Notification.id == notification_id).values(state="pending")
    subscriber_id = connection.scalar(again.returning(Notification.subscriber_id))
    if subscriber_id is None:
        raise LookupError(f"there is no notification {notification_id}")
    clear_rate_limit(connection, pause_scope(subscriber_id))
    log_action(connection, actor, "notification.replay", str(notification_id))
    return queue.enqueue(connection, NOTIFY, [str(notification_id)])


def pause_scope(subscriber_id: UUID) -> str:
    """Return the scope of the pause of a subscriber that does not answer."""
    return f"subscriber:{subscriber_id}"
