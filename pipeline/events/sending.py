"""Send notifications: one POST for each attempt, signed by Standard Webhooks, retried with exponential back-off."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, RowMapping, select, update
from standardwebhooks.webhooks import Webhook

from models import Notification, Subscriber
from pipeline.db.bodies import read_body
from pipeline.db.ids import format_timestamp, utcnow
from pipeline.db.json import dumps
from pipeline.events.results import with_result
from pipeline.events.subscriptions import pause_scope
from pipeline.http.client import DownloadError, DownloadRefused, Unreachable, check_allowed, request
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job
from pipeline.jobs.rate_limits import back_off, check_rate_limit, clear_rate_limit, set_rate_limit
from pipeline.service import Service
from scale.http import cancel_abort

RESPONSE_TIMEOUT_SECONDS = 15.0
SLOW_SECONDS = 5.0
REST_FACTOR = 3
"""A receiver that takes SLOW_SECONDS to answer is left alone for this many times as long: it gets a quarter of the workers' time."""
MAX_STORED_ATTEMPTS = 50
"""Attempts that one notification keeps, the last ones."""
GONE = 410
"""Answer of a receiver that unsubscribes. Source: Standard Webhooks specification, "Operational considerations"."""


class SendAttempt(NamedTuple):
    """One attempt, as the notification's history shows it."""

    at: str
    status: int | None  # HTTP status of the answer; None without one
    error: str | None  # None if it was accepted
    seconds: float


class Outcome(NamedTuple):
    """What an attempt means for its notification."""

    attempt: SendAttempt
    is_final: bool = False  # no further attempt can succeed
    is_unreachable: bool = False  # the receiver did not answer in time
    retry_after: float | None = None  # seconds that the receiver asked to wait


def send_notification(service: Service, job: Job) -> None:
    """Run a job of kind `notify`: send one notification, and record the attempt.

    It is retried until it is accepted; after the last attempt it is failed. The answer 410 disables the subscriber.
    A receiver that does not answer, or slowly, is paused, so that its notifications do not occupy every worker one after another.
    Raises RetryLater during such a pause, and while files of the result that it carries are being fetched.
    """
    with service.reader.begin() as connection:
        row = _read(connection, UUID(job.subject))
        was_paused = row is not None and check_rate_limit(connection, pause_scope(row["subscriber_id"]))
        received = read_body(connection, row["delivery_id"]) if row and row["delivery_id"] else None
    if row is None or row["state"] != "pending":
        with service.engine.begin() as connection:
            return queue.finish(connection, job)
    payload = with_result(service, row["event"], row["payload"]) if row["with_result"] else row["payload"]
    outcome = _send(service, row, dumps(payload).encode() if row["delivery_id"] is None else received)
    attempt = outcome.attempt
    state = _next_state(outcome, is_last=job.attempts >= kinds.MAX_ATTEMPTS[kinds.NOTIFY])
    with service.engine.begin() as connection:
        values: dict[str, Any] = {
            "state": state,
            "attempts": [*row["attempts"], attempt._asdict()][-MAX_STORED_ATTEMPTS:],
        }
        if state == "delivered":
            values["delivered_at"] = utcnow()
        connection.execute(update(Notification).where(Notification.id == row["id"]).values(**values))
        if outcome.is_unreachable:
            back_off(connection, pause_scope(row["subscriber_id"]), "the receiver does not answer")
        elif attempt.seconds >= SLOW_SECONDS:
            rest = REST_FACTOR * attempt.seconds
            set_rate_limit(connection, pause_scope(row["subscriber_id"]), "the receiver answers slowly", rest)
        elif was_paused:
            clear_rate_limit(connection, pause_scope(row["subscriber_id"]))
        if attempt.status == GONE:
            _disable(connection, row["subscriber_id"])
        if state != "pending":
            return queue.finish(connection, job)
        queue.reschedule(connection, job, attempt.error, delay=outcome.retry_after)


def _next_state(outcome: Outcome, *, is_last: bool) -> str:
    if outcome.attempt.error is None:
        return "delivered"
    return "failed" if outcome.is_final or is_last else "pending"


def _disable(connection: Connection, subscriber_id: UUID) -> None:
    disabled = {"enabled": False, "reason": "the receiver answered 410 Gone"}
    connection.execute(update(Subscriber).where(Subscriber.id == subscriber_id).values(**disabled))


def _read(connection: Connection, notification_id: UUID) -> RowMapping | None:
    of_subscriber = (
        Subscriber.url, Subscriber.secret, Subscriber.headers, Subscriber.enabled, Subscriber.with_result,
    )  # fmt: skip
    statement = (
        select(*Notification.__table__.c, *of_subscriber)
        .join(Subscriber, Subscriber.id == Notification.subscriber_id)
        .where(Notification.id == notification_id)
    )
    return connection.execute(statement).mappings().one_or_none()


def _send(service: Service, row: RowMapping, body: bytes | None) -> Outcome:
    """Send the notification once. Return what the receiver answered, or why it was not reached."""
    started, timestamp = time.monotonic(), utcnow()

    def attempt(status: int | None, error: str | None) -> SendAttempt:
        return SendAttempt(format_timestamp(timestamp), status, error, round(time.monotonic() - started, 3))

    if not row["enabled"]:
        return Outcome(attempt(None, "the subscriber is disabled"), is_final=True)
    if body is None:
        return Outcome(attempt(None, "the body of the delivery was purged"), is_final=True)
    try:
        headers = {
            **(row["headers"] or {}),
            "Content-Type": "application/json",
            # The body of delivery.received is the sender's own and could look like any event; this names the real one.
            "webhook-event": row["event"],
            **signature_headers(row, timestamp, body),
        }
        target, private_allowed = check_allowed(row["url"], service.settings.subscriber_hosts)
        deadline = time.monotonic() + RESPONSE_TIMEOUT_SECONDS
        response = request(target, private_allowed, deadline, "POST", headers=headers, body=body)
    except UnicodeDecodeError:
        return Outcome(attempt(None, "the body is not UTF-8, which the signature requires"), is_final=True)
    except DownloadError as failure:
        return Outcome(
            attempt(None, str(failure)),
            is_final=isinstance(failure, DownloadRefused),
            is_unreachable=isinstance(failure, Unreachable),
        )
    try:
        status = response.status_code
        retry_after = _seconds(response.headers.get("Retry-After", ""))
    finally:
        cancel_abort(response)
        response.close()
    if 200 <= status < 300:
        return Outcome(attempt(status, None))
    why = f"the receiver answered {status}"
    return Outcome(attempt(status, why), is_final=status == GONE, retry_after=retry_after)


def _seconds(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After header, at most MAX_BACKOFF_SECONDS; None for a date or nothing."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return min(float(retry_after), queue.MAX_BACKOFF_SECONDS)


def signature_headers(row: Mapping[Any, Any], timestamp: datetime, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks. `webhook-id` is the same in every attempt, so that receivers can deduplicate.

    Raises UnicodeDecodeError for a body that is not UTF-8.
    """
    message_id = f"msg_{row['id'].hex}"
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(timestamp.timestamp())),
        "webhook-signature": Webhook(row["secret"]).sign(message_id, timestamp, body.decode()),
    }
