"""A delivery is kept and understood in one transaction: the raw bytes, the task, the response version, its annotations,
its files and the jobs that follow. After the commit the caller answers, then rings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import DBAPIError

from pipeline.db.errors import is_transient, rolled_back, safe_message
from pipeline.db.ids import new_id, utcnow
from pipeline.jobs import queue
from pipeline.receive.fast_path import insert_first_callback
from pipeline.receive.ordering import task_changes
from pipeline.receive.rows import (
    TASKS,
    DeliveryMeta,
    find_version,
    insert_delivery,
    link_follow_up,
    lock_task,
    renumber_versions,
    reparse_versions,
    update_delivery,
    upsert_batch,
    write_artifacts,
    write_version,
)
from scale.envelope import ABSENT, Callback, InvalidCallback, parse_callback, response_digest
from scale.task_types import parse_response

log = logging.getLogger(__name__)

EventPublisher = Callable[[Connection, DeliveryMeta, Callback | InvalidCallback | None], list[UUID]]
"""What tells subscribers of a delivery, in its transaction; gives jobs to ring for."""
TypeFilter = Callable[[str | None], bool]
"""Whether some workflow could want to look at a task of this type."""


class DatabaseBusy(Exception):
    """The database could not do it now: a row was locked, or a statement took too long."""


MAX_TASK_ID_LENGTH = 200
"""Characters of a task_id: it is part of keys, and PostgreSQL bounds what an index holds."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one delivery: the answer to Scale, and the jobs to ring for after it."""

    delivery_id: UUID
    status: str  # processed | stored | duplicate | quarantined
    jobs: list[UUID]

    def with_jobs(self, job_ids: list[UUID] | None) -> Receipt:
        """With the jobs that tell subscribers of it."""
        return replace(self, jobs=[*self.jobs, *job_ids]) if job_ids else self


def receive(
    engine: Engine,
    body: bytes,
    environment: str,
    *,
    has_workflow_for: TypeFilter,
    inline_bytes: int,
    headers: Mapping[str, str] | None = None,
    kind: str = "callback",
    tell: EventPublisher | None = None,
) -> Receipt:
    """Keep `body` and, up to `inline_bytes`, take it in. Raises only when not even the raw bytes can be written.

    `tell` is called with what was taken in, where subscribers want to hear of it: see pipeline/events/outbox.py.
    """
    delivery = DeliveryMeta(new_id(), kind, environment, utcnow())
    reading = parse_body(body, environment) if len(body) <= inline_bytes else None
    if tell is None:
        job_ids = insert_first_callback(engine, delivery, body, headers or {}, reading, has_workflow_for)
        if job_ids is not None:
            return Receipt(delivery.id, "processed", job_ids)
    with engine.begin() as connection:
        if (first := insert_delivery(connection, delivery, body, headers or {}, reading)) is not None:
            return Receipt(first, "duplicate", [])
        try:
            if reading is not None:
                receipt = apply_or_quarantine(connection, delivery, reading, has_workflow_for)
                return receipt.with_jobs(tell and tell(connection, delivery, reading))
        except DatabaseBusy as busy:
            log.warning("delivery %s waits for the worker: %s", delivery.id, busy)
            update_delivery(connection, delivery.id, status="stored")
        return Receipt(delivery.id, "stored", queue.enqueue(connection, queue.PARSE, [str(delivery.id)]))


def parse_body(body: bytes, environment: str) -> Callback | InvalidCallback:
    """The callback in these bytes, or why there is none: also where our own code fails on them."""
    try:
        callback = parse_callback(body, environment)
        if len(callback.task_id or "") > MAX_TASK_ID_LENGTH:
            return InvalidCallback(f"its task_id has more than {MAX_TASK_ID_LENGTH} characters")
        return callback
    except InvalidCallback as problem:
        return problem
    except Exception as failure:
        log.exception("reading a delivery failed")
        return InvalidCallback(f"reading it failed: {type(failure).__name__}: {failure}"[:1000])


def apply_or_quarantine(
    connection: Connection,
    delivery: DeliveryMeta,
    reading: Callback | InvalidCallback,
    has_workflow_for: TypeFilter,
    *,
    reparse: bool = False,
) -> Receipt:
    """Take the callback in. What fails is undone to the raw delivery, which then waits in quarantine with the reason.

    Raises Busy, with nothing but the raw delivery written, when the same attempt may succeed a little later.
    """
    if isinstance(reading, InvalidCallback):
        return Receipt(delivery.id, "quarantined", [])
    try:
        with connection.begin_nested():
            job_ids = apply_callback(connection, delivery, reading, has_workflow_for, reparse=reparse)
            return Receipt(delivery.id, "processed", job_ids)
    except DBAPIError as refused:
        if refused.connection_invalidated or rolled_back(connection):
            raise
        if is_transient(refused):
            raise DatabaseBusy(safe_message(refused)) from refused
        reason = f"the database refused it: {safe_message(refused)}"
    except InvalidCallback as problem:
        reason = str(problem)
    except Exception as failure:
        log.exception("taking delivery %s failed", delivery.id)
        reason = f"taking it failed: {type(failure).__name__}: {failure}"
    update_delivery(connection, delivery.id, status="quarantined", reason=reason[:1000])
    return Receipt(delivery.id, "quarantined", [])


def apply_callback(
    connection: Connection,
    delivery: DeliveryMeta,
    callback: Callback,
    has_workflow_for: TypeFilter,
    *,
    reparse: bool = False,
) -> list[UUID]:
    """Bring the tables to what this callback says; the jobs that must follow. The task row is locked first.

    `reparse` understands a response that is known already once more, as a replay after an upgrade wants it.
    """
    if callback.task_id is None:
        upsert_batch(connection, callback, delivery)
        return []
    task_id, moment = callback.task_id, (callback.clock or delivery.received_at, delivery.id)
    stored = lock_task(connection, task_id, callback.environment)
    if stored["environment"] != callback.environment:
        raise InvalidCallback(
            f"it came as {callback.environment}, but its task {task_id} is known as {stored['environment']}"
        )
    job_ids: list[UUID] = []
    known, version_id = None, None
    if callback.response is not ABSENT:
        digest = response_digest(callback.response)
        known = find_version(connection, task_id, digest, callback.event, moment)
        version_id = known or new_id()
    changes = task_changes(stored, callback, moment, version_id)
    task = {**stored, **changes}
    type_name, params = task["type"], task["params"]
    if version_id is not None and known is None:
        changes["response_count"] = number = stored["response_count"] + 1
        result = parse_response(type_name, callback.response, params)
        write_version(connection, version_id, number, digest, delivery, callback, result)
        job_ids += write_artifacts(connection, version_id, task_id, result)
        if number > 1:
            renumber_versions(connection, task_id)
    if stored["response_count"] and not changes.keys().isdisjoint(("type", "params")):
        job_ids += reparse_versions(connection, task_id, type_name, params)
    elif reparse and known is not None:
        job_ids += reparse_versions(connection, task_id, type_name, params, known)
    named = callback.task.unique_id if callback.task else None
    if joined := link_follow_up(connection, task, named):
        changes["follow_up_unique_id"] = joined
    if changes:
        connection.execute(update(TASKS).where(TASKS.c.task_id == task_id), changes)
    if type_name is None:
        job_ids += queue.enqueue(connection, queue.COMPLETE, [task_id])
    if joined or has_workflow_for(type_name):
        job_ids += queue.enqueue(connection, queue.PLAN, [task_id])
    return job_ids
