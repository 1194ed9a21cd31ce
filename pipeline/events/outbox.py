"""Transactional outbox for outbound webhooks: a notification is inserted in the transaction of its event, one for each
subscriber, and delivered by a job (see delivery.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from more_itertools import chunked
from sqlalchemy import Connection, update

from models import FollowUp, Notification
from pipeline.access.audit import log_action
from pipeline.db.dialect import insert
from pipeline.db.ids import format_timestamp, new_id, utcnow
from pipeline.db.tables import FOLLOW_UPS
from pipeline.events.subscriptions import (
    FILTERS,
    FOLLOW_UP,
    NOTHING,
    TEST,
    WORKFLOW,
    About,
    Subscriptions,
    has_subscriber,
    load_subscriptions,
    pause_scope,
)
from pipeline.jobs import kinds, queue
from pipeline.jobs.rate_limits import clear_rate_limit

BATCH_SIZE = 500

FOLLOW_UP_EVENT_FIELDS = (
    "unique_id", "workflow", "step", "state", "reason", "environment", "source_task_id", "source_annotation", "task_type",
    "task_id", "depth", "planned_at", "created_at",
)  # fmt: skip


def publish(
    connection: Connection,
    subscriptions: Subscriptions,
    event: str,
    key: str,
    data: Mapping[Any, Any],
    *,
    about: About = NOTHING,
    delivery_id: UUID | None = None,
) -> list[UUID]:
    """Insert a notification of `event` for each subscription that matches it. Return the jobs that deliver them.

    `key` identifies the occurrence: each subscriber is notified of it once. `about` is what subscribers filter by. With
    `delivery_id` the bytes of that delivery are sent instead of `data`.
    """
    timestamp = utcnow()
    body = {
        "type": event,
        "timestamp": format_timestamp(timestamp),
        "data": {name: _json(value) for name, value in data.items()},
    }
    notification_ids: list[str] = []
    for subscription in subscriptions:
        if subscription.matches(event, about):
            row = {
                "id": new_id(),
                "subscriber_id": subscription.id,
                "event": event,
                "key": f"{event}:{key}",
                "payload": body if delivery_id is None else None,
                "delivery_id": delivery_id,
                "state": "pending",
                "attempts": [],
                "created_at": timestamp,
            }
            statement = insert(connection, Notification).values(**row).on_conflict_do_nothing()
            notification_ids += map(str, connection.scalars(statement.returning(Notification.id)))
    return queue.enqueue(connection, kinds.NOTIFY, notification_ids)


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_timestamp(value)
    return str(value) if isinstance(value, UUID) else value


def publish_follow_ups(
    connection: Connection, subscriptions: Subscriptions, unique_ids: Sequence[str]
) -> list[UUID]:
    """Publish the state of each of these follow-ups whose state changed since it was published last."""
    job_ids: list[UUID] = []
    if not has_subscriber(subscriptions, FOLLOW_UP):
        return job_ids
    project = FOLLOW_UPS.c.request["project"].as_string().label("project")
    columns = [*(FOLLOW_UPS.c[name] for name in FOLLOW_UP_EVENT_FIELDS), project]
    for batch in chunked(unique_ids, BATCH_SIZE):
        changed = (
            update(FollowUp)
            .where(
                FollowUp.unique_id.in_(batch),
                FollowUp.notified_state.is_distinct_from(FollowUp.state),
            )
            .values(notified_state=FollowUp.state)
        )
        for row in connection.execute(changed.returning(*columns)).mappings().all():
            event = f"{FOLLOW_UP}.{row['state']}"
            about = {name: (row[name],) for name in FILTERS}
            job_ids += publish(connection, subscriptions, event, str(new_id()), row, about=about)
    return job_ids


def enqueue_run_check(connection: Connection, subscriptions: Subscriptions, task_id: str) -> list[UUID]:
    """Enqueue a check whether the whole run of this task has finished, if anyone subscribes to workflow.finished."""
    if not has_subscriber(subscriptions, WORKFLOW):
        return []
    return queue.enqueue(connection, kinds.CHECK_RUN, [task_id])


def send_test(connection: Connection, actor: str, subscriber_id: UUID) -> list[UUID]:
    """Publish a test event to one subscriber and audit it. Return the job that delivers it, none for a disabled subscriber."""
    enabled = load_subscriptions(connection)
    only = tuple(replace(one, events=(TEST,), filters={}) for one in enabled if one.id == subscriber_id)
    log_action(connection, actor, "subscriber.test", str(subscriber_id), {"sent": bool(only)})
    clear_rate_limit(connection, pause_scope(subscriber_id))
    return publish(connection, only, f"{TEST}.sent", str(new_id()), {"message": "It works."})
