"""Receive a delivery: store the raw bytes, and apply the callback to its task, in one transaction.

After the commit the caller answers and dispatches the jobs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pipeline.db.errors import is_transient, rolled_back, safe_message
from pipeline.db.ids import new_id, utcnow
from pipeline.jobs import kinds, queue
from pipeline.receive import fast_path, purged, rows, versions
from pipeline.receive.events import DeliveryEvents
from pipeline.receive.ordering import task_changes
from pipeline.receive.rows import DeliveryMeta, Parsed
from pipeline.receive.takeover import take_over_task
from pipeline.service import Service
from scale.envelope import Callback, InvalidCallback, parse_callback

log = logging.getLogger(__name__)

TypeFilter = Callable[[str | None], bool]
"""Whether some workflow may take a result of this task type."""

MAX_TASK_ID_LENGTH = 200
"""Characters. A task_id is part of keys, and PostgreSQL bounds the size of an index entry."""
MAX_REASON_LENGTH = 1000
MAX_INLINE_VALUES = 150_000
"""Commas of a body that is parsed before it is answered. 1 MiB of Scale's own annotations has at most 110,000 of them; parsing
more would keep the interpreter lock from other callbacks for too long."""


class DatabaseBusy(Exception):
    """Raised when a callback could not be applied now: a row was locked, or a statement took too long."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one delivery: the answer to Scale, and the jobs to dispatch after it."""

    delivery_id: UUID
    status: str  # processed | stored | duplicate | quarantined
    jobs: list[UUID]

    def with_jobs(self, job_ids: list[UUID]) -> Receipt:
        """Return the receipt with more jobs to dispatch."""
        return replace(self, jobs=[*self.jobs, *job_ids]) if job_ids else self


def receive(
    service: Service,
    body: bytes,
    key_environment: str,
    *,
    headers: Mapping[str, str] | None = None,
    kind: str = "callback",
    may_create: bool = True,
) -> Receipt:
    """Store `body` and, up to INLINE_CALLBACK_BYTES and MAX_INLINE_VALUES, apply it in the same transaction.

    `key_environment` is the environment of the key that it came with. Without `may_create` the follow-ups of the result
    are held. Raises only if the raw bytes cannot be stored.
    """
    delivery = DeliveryMeta(new_id(), kind, key_environment, utcnow(), may_create)
    callback = parse_body(body, key_environment, delivery.id) if _is_inline(service, body) else None
    receipt = None
    if fast_path.applies(callback, service.engine.dialect.name):
        job_ids = fast_path.insert_first_callback(service, delivery, body, headers or {}, callback)
        receipt = None if job_ids is None else Receipt(delivery.id, "processed", job_ids)
    receipt = receipt or receive_in_steps(service, delivery, body, headers or {}, callback)
    if log.isEnabledFor(logging.DEBUG):
        fields = {**delivery.log_fields(callback), "delivery_id": str(receipt.delivery_id)}
        log.debug("delivery received", extra={**fields, "status": receipt.status, "kind": kind})
    return receipt


def _is_inline(service: Service, body: bytes) -> bool:
    """Return whether the body is parsed before it is answered."""
    size = len(body)
    return size <= service.settings.inline_callback_bytes and (
        size <= MAX_INLINE_VALUES or body.count(b",") <= MAX_INLINE_VALUES
    )


def receive_in_steps(
    service: Service, delivery: DeliveryMeta, body: bytes, headers: Mapping[str, str], callback: Parsed
) -> Receipt:
    """Receive any delivery: the general path."""
    events = DeliveryEvents(service.subscriptions)
    with service.engine.begin() as connection:
        first_id = rows.insert_delivery(connection, delivery, body, headers, callback)
        if first_id is not None:
            return Receipt(first_id, "duplicate", [])
        if callback is None:
            return _enqueue_parsing(connection, delivery)
        try:
            receipt = apply_or_quarantine(connection, delivery, callback, service.has_workflow_for)
        except DatabaseBusy as busy:
            log.warning(
                "callback left to the worker", extra={**delivery.log_fields(callback), "error": str(busy)}
            )
            rows.update_delivery(connection, delivery.id, status="stored")
            return _enqueue_parsing(connection, delivery)
        return receipt.with_jobs(events.publish(connection, delivery, callback))


def _enqueue_parsing(connection: Connection, delivery: DeliveryMeta) -> Receipt:
    return Receipt(delivery.id, "stored", queue.enqueue(connection, kinds.PARSE, [str(delivery.id)]))


def parse_body(
    body: bytes, key_environment: str, delivery_id: UUID | None = None
) -> Callback | InvalidCallback:
    """Return the callback in these bytes, or why there is none, also if our own code fails on them.

    `delivery_id` is for the log.
    """
    try:
        callback = parse_callback(body, key_environment)
        if len(callback.task_id or "") > MAX_TASK_ID_LENGTH:
            return InvalidCallback(f"its task_id has more than {MAX_TASK_ID_LENGTH} characters")
        return callback
    except InvalidCallback as problem:
        return problem
    except Exception as failure:
        log.exception("could not parse delivery", extra={"delivery_id": str(delivery_id)})
        return InvalidCallback(f"parsing failed: {type(failure).__name__}: {failure}"[:MAX_REASON_LENGTH])


def apply_or_quarantine(
    connection: Connection,
    delivery: DeliveryMeta,
    callback: Callback | InvalidCallback,
    has_workflow_for: TypeFilter,
    *,
    reparse: bool = False,
) -> Receipt:
    """Apply a stored callback within a savepoint. If that fails, quarantine the delivery with the reason.

    Raises DatabaseBusy, with only the raw delivery written, if the same attempt may succeed later; and what means that
    the transaction is lost.
    """
    if isinstance(callback, InvalidCallback):
        return Receipt(delivery.id, "quarantined", [])
    try:
        with connection.begin_nested():
            job_ids = apply_callback(connection, delivery, callback, has_workflow_for, reparse=reparse)
            return Receipt(delivery.id, "processed", job_ids)
    except DBAPIError as fault:
        if fault.connection_invalidated or rolled_back(connection):
            raise
        if is_transient(fault):
            raise DatabaseBusy(safe_message(fault)) from fault
        reason = f"the database refused it: {safe_message(fault)}"
    except InvalidCallback as problem:
        reason = str(problem)
    except Exception as failure:
        log.exception("could not apply callback", extra=delivery.log_fields(callback))
        reason = f"applying it failed: {type(failure).__name__}: {failure}"
    rows.update_delivery(connection, delivery.id, status="quarantined", reason=reason[:MAX_REASON_LENGTH])
    return Receipt(delivery.id, "quarantined", [])


def apply_callback(
    connection: Connection,
    delivery: DeliveryMeta,
    callback: Callback,
    has_workflow_for: TypeFilter,
    *,
    reparse: bool = False,
) -> list[UUID]:
    """Apply a parsed callback to its task: version, order, follow-up. Return the jobs to dispatch.

    Locks the task's row first. `reparse` parses a response again that is stored already, as a replay after an upgrade
    needs. Raises InvalidCallback.
    """
    if callback.task_id is None:
        rows.upsert_batch(connection, callback, delivery)
        return []
    key = delivery.order_key(callback)
    stored = _lock_task(connection, callback.task_id, callback.environment)
    version = versions.find_version(connection, callback, key)
    changes = task_changes(stored, callback, key, version.id if version else None)
    if stored["purged_at"] is not None:
        purged.apply(connection, stored, delivery, callback, version, changes)
        return []
    job_ids = []
    if version and version.is_new:
        changes["response_count"] = stored["response_count"] + 1
        job_ids += versions.insert_version(connection, version, delivery, callback, {**stored, **changes})
    task = {**stored, **changes}
    if stored["response_count"] and not changes.keys().isdisjoint(("type", "params")):
        job_ids += versions.reparse_versions(connection, task)
    elif reparse and version and not version.is_new:
        job_ids += versions.reparse_versions(connection, task, version.id)
    named = callback.task.unique_id if callback.task else None
    if unique_id := rows.link_follow_up(connection, task, named):
        changes["follow_up_unique_id"] = unique_id
    rows.update_task(connection, callback.task_id, changes)
    return job_ids + _enqueue_next(connection, {**task, **changes}, has_workflow_for)


def _lock_task(connection: Connection, task_id: str, environment: str) -> Mapping[str, Any]:
    """Lock the task's row. Raises InvalidCallback for a test delivery of a live task; the reverse takes the task over."""
    stored = rows.lock_task(connection, task_id, environment)
    if stored["environment"] == environment:
        return stored
    if environment == "live":
        return take_over_task(connection, task_id)
    raise InvalidCallback(f"it came as test, but its task {task_id} is known as live")


def _enqueue_next(
    connection: Connection, task: Mapping[str, Any], has_workflow_for: TypeFilter
) -> list[UUID]:
    """Enqueue what a changed task needs next: its description from Scale, and planning."""
    job_ids = []
    if task["type"] is None and task["described_clock"] is None:
        job_ids += queue.enqueue(connection, kinds.DESCRIBE, [task["task_id"]])
    if task["follow_up_unique_id"] or has_workflow_for(task["type"]):
        job_ids += queue.enqueue(connection, kinds.PLAN, [task["task_id"]])
    return job_ids
