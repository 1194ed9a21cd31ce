"""A delivery is kept and understood in one transaction: the raw bytes, the task, the response version, its annotations,
its files and the jobs that follow. After the commit the caller answers, then rings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import DBAPIError

from pipeline.db.errors import passing, rolled_back, words
from pipeline.db.ids import new_id, now
from pipeline.jobs import queue
from pipeline.receive.fast_path import receive_first
from pipeline.receive.ordering import settle
from pipeline.receive.rows import (
    TASKS,
    Received,
    join_follow_up,
    keep,
    lock_task,
    mark,
    number_by_clock,
    reparse_versions,
    seen_version,
    update_batch,
    write_artifacts,
    write_version,
)
from scale.envelope import ABSENT, Callback, InvalidCallback, parse_callback, response_digest
from scale.task_types import parse_response

log = logging.getLogger(__name__)

Tell = Callable[[Connection, Received, Callback | InvalidCallback | None], list[UUID]]
"""What tells subscribers of a delivery, in its transaction; gives jobs to ring for."""
Interest = Callable[[str | None], bool]
"""Whether some workflow could want to look at a task of this type."""


class Busy(Exception):
    """The database could not do it now: a row was locked, or a statement took too long."""


LONGEST_ID = 200
"""Characters of a task_id: it is part of keys, and PostgreSQL bounds what an index holds."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one delivery: the answer to Scale, and the jobs to ring for after it."""

    delivery_id: UUID
    status: str  # processed | stored | duplicate | quarantined
    jobs: list[UUID]

    def and_told(self, asked: list[UUID] | None) -> Receipt:
        """With the jobs that tell subscribers of it."""
        return replace(self, jobs=[*self.jobs, *asked]) if asked else self


def receive(
    engine: Engine,
    body: bytes,
    environment: str,
    *,
    interested: Interest,
    inline_bytes: int,
    headers: Mapping[str, str] | None = None,
    kind: str = "callback",
    tell: Tell | None = None,
) -> Receipt:
    """Keep `body` and, up to `inline_bytes`, take it in. Raises only when not even the raw bytes can be written.

    `tell` is called with what was taken in, where subscribers want to hear of it: see pipeline/events/outbox.py.
    """
    delivery = Received(new_id(), kind, environment, now())
    reading = read(body, environment) if len(body) <= inline_bytes else None
    if tell is None:
        asked = receive_first(engine, delivery, body, headers or {}, reading, interested)
        if asked is not None:
            return Receipt(delivery.id, "processed", asked)
    with engine.begin() as connection:
        if (first := keep(connection, delivery, body, headers or {}, reading)) is not None:
            return Receipt(first, "duplicate", [])
        try:
            if reading is not None:
                receipt = take_or_quarantine(connection, delivery, reading, interested)
                return receipt.and_told(tell and tell(connection, delivery, reading))
        except Busy as busy:
            log.warning("delivery %s waits for the worker: %s", delivery.id, busy)
            mark(connection, delivery.id, status="stored")
        return Receipt(delivery.id, "stored", queue.ask(connection, queue.PARSE, [str(delivery.id)]))


def read(body: bytes, environment: str) -> Callback | InvalidCallback:
    """The callback in these bytes, or why there is none: also where our own code fails on them."""
    try:
        callback = parse_callback(body, environment)
        if len(callback.task_id or "") > LONGEST_ID:
            return InvalidCallback(f"its task_id has more than {LONGEST_ID} characters")
        return callback
    except InvalidCallback as problem:
        return problem
    except Exception as failure:
        log.exception("reading a delivery failed")
        return InvalidCallback(f"reading it failed: {type(failure).__name__}: {failure}"[:1000])


def take_or_quarantine(
    connection: Connection,
    delivery: Received,
    reading: Callback | InvalidCallback,
    interested: Interest,
    *,
    reread: bool = False,
) -> Receipt:
    """Take the callback in. What fails is undone to the raw delivery, which then waits in quarantine with the reason.

    Raises Busy, with nothing but the raw delivery written, when the same attempt may succeed a little later.
    """
    if isinstance(reading, InvalidCallback):
        return Receipt(delivery.id, "quarantined", [])
    try:
        with connection.begin_nested():
            asked = take(connection, delivery, reading, interested, reread=reread)
            return Receipt(delivery.id, "processed", asked)
    except DBAPIError as refused:
        if refused.connection_invalidated or rolled_back(connection):
            raise
        if passing(refused):
            raise Busy(words(refused)) from refused
        reason = f"the database refused it: {words(refused)}"
    except InvalidCallback as problem:
        reason = str(problem)
    except Exception as failure:
        log.exception("taking delivery %s failed", delivery.id)
        reason = f"taking it failed: {type(failure).__name__}: {failure}"
    mark(connection, delivery.id, status="quarantined", reason=reason[:1000])
    return Receipt(delivery.id, "quarantined", [])


def take(
    connection: Connection,
    delivery: Received,
    callback: Callback,
    interested: Interest,
    *,
    reread: bool = False,
) -> list[UUID]:
    """Bring the tables to what this callback says; the jobs that must follow. The task row is locked first.

    `reread` understands a response that is known already once more, as a replay after an upgrade wants it.
    """
    if callback.task_id is None:
        update_batch(connection, callback, delivery)
        return []
    task_id, moment = callback.task_id, (callback.clock or delivery.received_at, delivery.id)
    stored = lock_task(connection, task_id, callback.environment)
    if stored["environment"] != callback.environment:
        raise InvalidCallback(
            f"it came as {callback.environment}, but its task {task_id} is known as {stored['environment']}"
        )
    asked: list[UUID] = []
    known, version_id = None, None
    if callback.response is not ABSENT:
        digest = response_digest(callback.response)
        known = seen_version(connection, task_id, digest, callback.event, moment)
        version_id = known or new_id()
    changes = settle(stored, callback, moment, version_id)
    task = {**stored, **changes}
    type_name, params = task["type"], task["params"]
    if version_id is not None and known is None:
        changes["response_count"] = number = stored["response_count"] + 1
        result = parse_response(type_name, callback.response, params)
        write_version(connection, version_id, number, digest, delivery, callback, result)
        asked += write_artifacts(connection, version_id, task_id, result)
        if number > 1:
            number_by_clock(connection, task_id)
    if stored["response_count"] and not changes.keys().isdisjoint(("type", "params")):
        asked += reparse_versions(connection, task_id, type_name, params)
    elif reread and known is not None:
        asked += reparse_versions(connection, task_id, type_name, params, known)
    named = callback.task.unique_id if callback.task else None
    if joined := join_follow_up(connection, task, named):
        changes["follow_up"] = joined
    if changes:
        connection.execute(update(TASKS).where(TASKS.c.task_id == task_id), changes)
    if type_name is None:
        asked += queue.ask(connection, queue.COMPLETE, [task_id])
    if joined or interested(type_name):
        asked += queue.ask(connection, queue.PLAN, [task_id])
    return asked
