"""Events leave the service: one notification for each subscriber, written in the transaction of what it tells of, then
sent by a job, signed by the Standard Webhooks scheme, and again with longer and longer pauses until it is taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, RowMapping, select, update
from standardwebhooks.webhooks import Webhook

from models import Delivery, FollowUp, Notification, Response, Subscriber
from pipeline.db.dialect import insert
from pipeline.db.ids import format_timestamp, new_id, utcnow
from pipeline.db.json import dumps
from pipeline.events.subscriptions import (
    DELIVERY,
    FOLLOW_UP,
    RESPONSE,
    TASK,
    TEST,
    WORKFLOW,
    Subscriptions,
    has_subscriber,
)
from pipeline.follow_ups.runs import finished_run, root_of
from pipeline.http.client import DownloadError, DownloadRefused, check_allowed, request
from pipeline.jobs import queue
from pipeline.jobs.queue import Job
from pipeline.receive.receive import EventPublisher
from pipeline.receive.rows import TASKS, DeliveryMeta
from pipeline.service import Service
from scale.envelope import Callback, InvalidCallback
from scale.http import cancel_abort

log = logging.getLogger(__name__)

RESPONSE_TIMEOUT_SECONDS = 15.0
MAX_STORED_ATTEMPTS = 50
"""Kept of the history of one notification."""
GONE = 410
"""The receiver does not want to hear any more. Source: Standard Webhooks specification, "Operational considerations"."""
BATCH_SIZE = 500


# What happened is written down.


def publish(
    connection: Connection,
    subscriptions: Subscriptions,
    event: str,
    key: str,
    data: Mapping[Any, Any],
    *,
    delivery_id: UUID | None = None,
) -> list[UUID]:
    """Tell everyone who matches `event`; jobs to ring for. `key` says what happened: the same is told once.

    With `delivery_id` the delivery's own bytes are sent, and not `data`.
    """
    moment = utcnow()
    body = {
        "type": event,
        "timestamp": format_timestamp(moment),
        "data": {name: _json(value) for name, value in data.items()},
    }
    told: list[str] = []
    for one in subscriptions:
        if one.matches(event):
            row = {
                "id": new_id(),
                "subscriber_id": one.id,
                "event": event,
                "key": f"{event}:{key}",
                "payload": body if delivery_id is None else None,
                "delivery_id": delivery_id,
                "state": "pending",
                "attempts": [],
                "created_at": moment,
            }
            statement = insert(connection, Notification).values(**row).on_conflict_do_nothing()
            told += map(str, connection.scalars(statement.returning(Notification.id)))
    return queue.enqueue(connection, queue.NOTIFY, told)


def _json(value: Any) -> Any:
    return (
        format_timestamp(value)
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, UUID)
        else value
    )


def event_publisher(service: Service) -> EventPublisher | None:
    """What tells of deliveries; None while nobody wants to hear of any: then receiving takes its shortest way."""
    subscriptions = service.subscriptions
    if not any(has_subscriber(subscriptions, group) for group in (DELIVERY, TASK, RESPONSE, FOLLOW_UP)):
        return None

    def tell(
        connection: Connection, delivery: DeliveryMeta, reading: Callback | InvalidCallback | None
    ) -> list[UUID]:
        try:
            with connection.begin_nested():
                return _tell_of(connection, subscriptions, delivery, reading)
        except Exception:  # nobody's subscription may stand in the way of a callback
            log.exception("telling of delivery %s failed", delivery.id)
            return []

    return tell


def _tell_of(
    connection: Connection,
    subscriptions: Subscriptions,
    delivery: DeliveryMeta,
    reading: Callback | InvalidCallback | None,
) -> list[UUID]:
    key = str(delivery.id)
    job_ids = publish(connection, subscriptions, f"{DELIVERY}.received", key, {}, delivery_id=delivery.id)
    if not isinstance(reading, Callback) or reading.task_id is None:
        return job_ids
    task = (
        connection.execute(select(TASKS).where(TASKS.c.task_id == reading.task_id)).mappings().one_or_none()
    )
    if task is None:  # what it said was refused
        return job_ids
    said = {name: task[name] for name in TASK_EVENT_FIELDS} | {
        "follow_up": task["follow_up_unique_id"],
        "event": reading.event,
        "delivery_id": delivery.id,
    }
    job_ids += publish(connection, subscriptions, f"{TASK}.{reading.event}", key, said)
    columns = (Response.task_id, Response.number, Response.error, Response.answer, Response.annotation_count)
    new = select(*columns).where(
        Response.task_id == reading.task_id,
        Response.delivery_id == delivery.id,
        Response.received_at == delivery.received_at,
    )
    if (response := connection.execute(new).mappings().one_or_none()) is not None:
        job_ids += publish(connection, subscriptions, f"{RESPONSE}.received", key, response)
    if task["follow_up_unique_id"] is not None:
        job_ids += follow_ups_changed(connection, subscriptions, [task["follow_up_unique_id"]])
    return job_ids


TASK_EVENT_FIELDS = (
    "task_id", "type", "status", "environment", "project", "batch", "unique_id", "tags", "metadata", "review_status",
    "created_at", "updated_at", "completed_at",
)  # fmt: skip


def follow_ups_changed(
    connection: Connection, subscriptions: Subscriptions, unique_ids: Sequence[str]
) -> list[UUID]:
    """Tell of each of these follow-ups whose state is another than the one that was told of last."""
    job_ids: list[UUID] = []
    if not has_subscriber(subscriptions, FOLLOW_UP):
        return job_ids
    columns = [FollowUp.__table__.c[name] for name in FOLLOW_UP_EVENT_FIELDS]
    for start in range(0, len(unique_ids), BATCH_SIZE):
        changed = update(FollowUp).where(
            FollowUp.unique_id.in_(unique_ids[start : start + BATCH_SIZE]),
            FollowUp.notified_state.is_distinct_from(FollowUp.state),
        )
        for row in (
            connection.execute(changed.values(notified_state=FollowUp.state).returning(*columns))
            .mappings()
            .all()
        ):
            job_ids += publish(connection, subscriptions, f"{FOLLOW_UP}.{row['state']}", str(new_id()), row)
    return job_ids


FOLLOW_UP_EVENT_FIELDS = (
    "unique_id", "workflow", "step", "state", "reason", "environment", "source_task_id", "source_annotation", "task_type",
    "task_id", "depth", "planned_at", "created_at",
)  # fmt: skip


def changed(connection: Connection, service: Service, unique_ids: Sequence[str]) -> None:
    """These follow-ups may have another state: whoever wants to hear of it is told."""
    follow_ups_changed(connection, service.subscriptions, unique_ids)


def enqueue_run_check(connection: Connection, subscriptions: Subscriptions, task_id: str) -> list[UUID]:
    """Something of the run that this task belongs to has ended: was it the last? Only asked if somebody wants to know."""
    return (
        queue.enqueue(connection, queue.CHECK_RUN, [task_id])
        if has_subscriber(subscriptions, WORKFLOW)
        else []
    )


def publish_run_finished(service: Service, job: Job) -> None:
    """Tell that a run has come to its end, once; again only when more has followed since."""
    with service.reader.begin() as connection:
        root = root_of(connection, job.subject)
        ended = finished_run(connection, root)
    with service.engine.begin() as connection:
        if ended is not None:
            workflows, run = ended
            counts = ",".join(f"{state}={number}" for state, number in sorted(run["counts"].items()))
            said = {"task_id": root, "workflows": sorted(workflows), **run}
            publish(connection, service.subscriptions, f"{WORKFLOW}.finished", f"{root}:{counts}", said)
        queue.finish(connection, job)


def send_test(connection: Connection, subscriptions: Subscriptions, subscriber_id: UUID) -> list[UUID]:
    """A notification that a person asks for, to see whether it arrives."""
    only = tuple(replace(one, events=(TEST,)) for one in subscriptions if one.id == subscriber_id)
    return publish(connection, only, f"{TEST}.sent", str(new_id()), {"message": "It works."})


# What was written is sent.


class DeliveryAttempt(NamedTuple):
    """One attempt, as the history shows it."""

    at: str
    status: int | None  # of the answer; None: none came
    error: str | None  # None: it was taken
    seconds: float


def deliver_notification(service: Service, job: Job) -> None:
    """Send one notification. What is not taken is sent again later; after the last attempt it has failed."""
    with service.reader.begin() as connection:
        row = _read(connection, UUID(job.subject))
    if row is None or row["state"] != "pending":
        with service.engine.begin() as connection:
            return queue.finish(connection, job)
    made, final, retry_after = _try(service, row)
    with service.engine.begin() as connection:
        values: dict[str, Any] = {"attempts": [*row["attempts"], made._asdict()][-MAX_STORED_ATTEMPTS:]}
        last = job.attempts >= queue.MAX_ATTEMPTS[queue.NOTIFY]
        if made.error is None:
            values |= {"state": "delivered", "delivered_at": utcnow()}
        elif final or last:
            values |= {"state": "failed"}
        connection.execute(update(Notification).where(Notification.id == row["id"]).values(**values))
        if made.status == GONE:
            gone = {"enabled": False, "reason": "its receiver answered 410: it wants to hear no more"}
            connection.execute(update(Subscriber).where(Subscriber.id == row["subscriber_id"]).values(**gone))
        if "state" in values:
            return queue.finish(connection, job)
        queue.reschedule(connection, job, made.error, delay=retry_after)


def _read(connection: Connection, notification_id: UUID) -> RowMapping | None:
    of_subscriber = (Subscriber.url, Subscriber.secret, Subscriber.headers, Subscriber.enabled)
    statement = (
        select(*Notification.__table__.c, *of_subscriber, Delivery.body)
        .join(Subscriber, Subscriber.id == Notification.subscriber_id)
        .outerjoin(Delivery, Delivery.id == Notification.delivery_id)
        .where(Notification.id == notification_id)
    )
    return connection.execute(statement).mappings().one_or_none()


def _try(service: Service, row: RowMapping) -> tuple[DeliveryAttempt, bool, float | None]:
    """(what became of it, whether another try is of no use, seconds that the receiver asks to wait)"""
    began, moment = time.monotonic(), utcnow()

    def ended(status: int | None, error: str | None) -> DeliveryAttempt:
        return DeliveryAttempt(format_timestamp(moment), status, error, round(time.monotonic() - began, 3))

    if not row["enabled"]:
        return ended(None, "the subscriber is disabled"), True, None
    if row["delivery_id"] is not None and row["body"] is None:
        return ended(None, "the delivery is not kept any more"), True, None
    body = dumps(row["payload"]).encode() if row["delivery_id"] is None else bytes(row["body"])
    try:
        headers = {
            **(row["headers"] or {}),
            "Content-Type": "application/json",
            **signature_headers(row, moment, body),
        }
        target, private_allowed = check_allowed(row["url"], service.settings.subscriber_hosts)
        response = request(
            target,
            private_allowed,
            time.monotonic() + RESPONSE_TIMEOUT_SECONDS,
            "POST",
            headers=headers,
            body=body,
        )
    except UnicodeDecodeError:
        return ended(None, "its bytes are not UTF-8, which the signature needs"), True, None
    except (DownloadRefused, DownloadError) as failure:
        return ended(None, str(failure)), isinstance(failure, DownloadRefused), None
    try:
        status = response.status_code
        wait = response.headers.get("Retry-After", "")
    finally:
        cancel_abort(response)
        response.close()
    if 200 <= status < 300:
        return ended(status, None), False, None
    retry_after = min(float(wait), queue.MAX_BACKOFF_SECONDS) if wait.isascii() and wait.isdigit() else None
    return ended(status, f"the receiver answered {status}"), status == GONE, retry_after


def signature_headers(row: Mapping[Any, Any], moment: datetime, body: bytes) -> dict[str, str]:
    """The headers of the Standard Webhooks scheme. The id stays the same in every try, so that a receiver can tell."""
    name = f"msg_{row['id'].hex}"
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(row["secret"]).sign(name, moment, body.decode()),
    }
