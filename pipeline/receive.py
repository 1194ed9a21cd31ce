"""A delivery is kept and understood in one transaction: the raw bytes, the task, the response version, its annotations,
its files and the jobs that follow. After the commit the caller answers, then rings."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Connection, Engine, Table, delete, func, or_, select, true, update
from sqlalchemy.exc import DBAPIError, OperationalError

from models import Annotation, Artifact, Batch, Delivery, FollowUp, Response, Task
from pipeline import jobs
from pipeline.artifacts import measure_again
from pipeline.database import from_now, insert, new_id, now
from pipeline.first import write_first
from pipeline.rows import arrays, write_annotations
from pipeline.versions import Moment, settle
from scale.envelope import ABSENT, Callback, NotUnderstood, parse_callback, response_digest
from scale.results import Result
from scale.task_types import understand

log = logging.getLogger(__name__)

Interest = Callable[[str | None], bool]
"""Whether some workflow could want to look at a task of this type."""

TASKS = cast(Table, Task.__table__)


class Busy(Exception):
    """The database could not do it now: a row was locked for too long."""


UNKNOWN: Mapping[str, Any] = dict.fromkeys(TASKS.c.keys())
"""The row of a task that nobody has heard of."""
LONGEST_ID = 200
"""Characters of a task_id: it is part of keys, and PostgreSQL bounds what an index holds."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one delivery: the answer to Scale, and the jobs to ring for after it."""

    delivery_id: UUID
    status: str  # processed | stored | duplicate | quarantined
    jobs: list[UUID]


@dataclass(frozen=True, slots=True)
class Received:
    """The identity and the moment of one delivery."""

    id: UUID
    kind: str  # callback | reconciled | imported
    environment: str  # of the key that it came with, until its task says otherwise
    received_at: datetime


def receive(
    engine: Engine,
    body: bytes,
    environment: str,
    *,
    interested: Interest,
    inline_bytes: int,
    headers: Mapping[str, str] | None = None,
    kind: str = "callback",
) -> Receipt:
    """Keep `body` and, up to `inline_bytes`, take it in. Raises only when not even the raw bytes can be written."""
    delivery = Received(new_id(), kind, environment, now())
    reading = read(body, environment) if len(body) <= inline_bytes else None
    if (receipt := usual(engine, delivery, body, headers or {}, reading, interested)) is not None:
        return receipt
    with engine.begin() as connection:
        if (first := keep(connection, delivery, body, headers or {}, reading)) is not None:
            return Receipt(first, "duplicate", [])
        try:
            if reading is not None:
                return take_or_quarantine(connection, delivery, reading, interested)
        except Busy as busy:
            log.warning("delivery %s waits for the worker: %s", delivery.id, busy)
            mark(connection, delivery.id, status="stored")
        return Receipt(delivery.id, "stored", jobs.ask(connection, jobs.PARSE, [str(delivery.id)]))


def read(body: bytes, environment: str) -> Callback | NotUnderstood:
    """The callback in these bytes, or why there is none: also where our own code fails on them."""
    try:
        callback = parse_callback(body, environment)
        if len(callback.task_id or "") > LONGEST_ID:
            return NotUnderstood(f"its task_id has more than {LONGEST_ID} characters")
        return callback
    except NotUnderstood as problem:
        return problem
    except Exception as failure:
        log.exception("reading a delivery failed")
        return NotUnderstood(f"reading it failed: {type(failure).__name__}: {failure}"[:1000])


def usual(
    engine: Engine,
    delivery: Received,
    body: bytes,
    headers: Mapping[str, str],
    reading: Callback | NotUnderstood | None,
    interested: Interest,
) -> Receipt | None:
    """The first callback of a task, when nothing about it is special: all of it in one statement.

    None, with nothing written, when it is special after all; `receive` then goes the long way, which knows what to do.
    """
    if engine.dialect.name != "postgresql" or not isinstance(reading, Callback):
        return None
    task = reading.task
    if not reading.task_id or task is None or task.type is None or task.unique_id is not None:
        return None
    try:
        version_id, response, annotations = None, {}, "[]"
        if reading.response is not ABSENT:
            result = understand(task.type, reading.response, task.params)
            if result.artifacts:
                return None
            version_id = new_id()
            digest = response_digest(reading.response)
            response = version_row(version_id, 1, digest, delivery, reading, result)
            annotations = arrays(result.annotations)
        moment = (reading.clock or delivery.received_at, delivery.id)
        row = {
            "task_id": reading.task_id,
            "id": new_id(),
            "environment": reading.environment,
            "response_count": 1 if response else 0,
            **settle(UNKNOWN, reading, moment, version_id),
        }
        job = jobs.row(jobs.PLAN, reading.task_id) if interested(task.type) else {}
        told_row = delivery_row(delivery, body, headers, reading)
        if write_first(engine, row, told_row, body, response, annotations, job):
            return Receipt(delivery.id, "processed", [job["id"]] if job else [])
    except Exception as failure:
        log.debug("the shortcut failed, the long way tells why: %s", failure)
    return None


def keep(
    connection: Connection,
    delivery: Received,
    body: bytes,
    headers: Mapping[str, str],
    reading: Callback | NotUnderstood | None,
) -> UUID | None:
    """Write the raw delivery; the id of the first one instead when the same bytes came before, which is counted."""
    statement = insert(connection, Delivery).values(
        body=body, **delivery_row(delivery, body, headers, reading)
    )
    statement = statement.on_conflict_do_update(
        index_elements=["environment", "sha256"],
        set_={"duplicates": Delivery.duplicates + 1, "last_received_at": delivery.received_at},
    ).returning(Delivery.id)
    kept = connection.scalars(statement).one()
    return None if kept == delivery.id else kept


def delivery_row(
    delivery: Received, body: bytes, headers: Mapping[str, str], reading: Callback | NotUnderstood | None
) -> dict[str, Any]:
    """The delivery's columns, without the body itself."""
    return {
        "id": delivery.id,
        "kind": delivery.kind,
        "environment": reading.environment if isinstance(reading, Callback) else delivery.environment,
        "sha256": hashlib.sha256(body).hexdigest(),
        "size_bytes": len(body),
        "headers": dict(headers),
        "received_at": delivery.received_at,
        "last_received_at": delivery.received_at,
        "duplicates": 0,
        **told(delivery, reading),
    }


def told(delivery: Received, reading: Callback | NotUnderstood | None) -> dict[str, Any]:
    """The columns of a delivery that say what was understood of it."""
    if reading is None:
        return {"status": "stored"}
    if isinstance(reading, NotUnderstood):
        return {"status": "quarantined", "reason": str(reading), "clock": delivery.received_at}
    task = reading.task
    review = (
        {"status": task.review_status, "comments": task.review_comments}
        if task and task.review_status
        else None
    )
    return {
        "status": "processed",
        "reason": None,
        "clock": reading.clock or delivery.received_at,
        "event": reading.event,
        "task_id": reading.task_id,
        "review": review,
        "flags": reading.flags or None,
    }


def take_or_quarantine(
    connection: Connection,
    delivery: Received,
    reading: Callback | NotUnderstood,
    interested: Interest,
    *,
    reread: bool = False,
) -> Receipt:
    """Take the callback in. What fails is undone to the raw delivery, which then waits in quarantine with the reason.

    Raises Busy, with nothing but the raw delivery written, when the same attempt may succeed a little later.
    """
    if isinstance(reading, NotUnderstood):
        return Receipt(delivery.id, "quarantined", [])
    try:
        with connection.begin_nested():
            asked = take(connection, delivery, reading, interested, reread=reread)
            return Receipt(delivery.id, "processed", asked)
    except DBAPIError as refused:
        if refused.connection_invalidated:
            raise
        if isinstance(refused, OperationalError):  # a lock or a statement took too long
            raise Busy(str(refused.orig)) from refused
        reason = f"the database refused it: {refused.orig}"
    except NotUnderstood as problem:
        reason = str(problem)
    except Exception as failure:
        log.exception("taking delivery %s failed", delivery.id)
        reason = f"taking it failed: {type(failure).__name__}: {failure}"
    mark(connection, delivery.id, status="quarantined", reason=reason[:1000])
    return Receipt(delivery.id, "quarantined", [])


def mark(connection: Connection, delivery_id: UUID, **values: Any) -> None:
    connection.execute(update(Delivery).where(Delivery.id == delivery_id).values(**values))


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
        raise NotUnderstood(
            f"it came as {callback.environment}, but its task {task_id} is known as {stored['environment']}"
        )
    type_name, params = stored["type"], stored["params"]
    if callback.task is not None and callback.task.type is not None:
        type_name, params = callback.task.type, callback.task.params

    asked: list[UUID] = []
    version_id, changes = None, {}
    if callback.response is not ABSENT:
        digest = response_digest(callback.response)
        version_id = seen_version(connection, task_id, digest, callback.event, moment)
        if version_id is None:
            version_id, number = new_id(), stored["response_count"] + 1
            result = understand(type_name, callback.response, params)
            write_version(connection, version_id, number, digest, delivery, callback, result)
            asked += write_artifacts(connection, version_id, task_id, result)
            changes = {"response_count": number}
            if number > 1:
                number_by_clock(connection, task_id)
        elif reread:
            asked += understand_again(connection, task_id, type_name, params, version_id)
    changes |= settle(stored, callback, moment, version_id)
    if type_name != stored["type"] and stored["response_count"]:
        asked += understand_again(connection, task_id, type_name, params)
    task = {**stored, **changes}
    if joined := join_follow_up(connection, task):
        changes["follow_up"] = joined
    if changes:
        connection.execute(update(TASKS).where(TASKS.c.task_id == task_id).values(changes))
    if type_name is None:
        asked += jobs.ask(connection, jobs.COMPLETE, [task_id])
    if joined or interested(type_name):
        asked += jobs.ask(connection, jobs.PLAN, [task_id])
    return asked


def lock_task(connection: Connection, task_id: str, environment: str) -> dict[str, Any]:
    """The task's row, made if this is the first that is heard of it, and ours until the transaction ends."""
    statement = insert(connection, TASKS).values(task_id=task_id, id=new_id(), environment=environment)
    statement = statement.on_conflict_do_update(
        index_elements=["task_id"], set_={"task_id": statement.excluded.task_id}
    )
    return dict(connection.execute(statement.returning(TASKS)).mappings().one())


def seen_version(
    connection: Connection, task_id: str, digest: str, event: str, moment: Moment
) -> UUID | None:
    """The version that holds this response already; its event is what the earliest delivery of it told."""
    known = connection.execute(
        select(Response.id, Response.clock, Response.delivery_id).where(
            Response.task_id == task_id, Response.digest == digest
        )
    ).one_or_none()
    if known is None:
        return None
    if moment < (known.clock, known.delivery_id):
        earlier = {"event": event, "clock": moment[0], "delivery_id": moment[1]}
        connection.execute(update(Response).where(Response.id == known.id).values(**earlier))
        number_by_clock(connection, task_id)
    seen: UUID = known.id
    return seen


def number_by_clock(connection: Connection, task_id: str) -> None:
    """Number the versions of a task in the order in which they came about, however late each was received."""
    versions = connection.execute(
        select(Response.id, Response.number)
        .where(Response.task_id == task_id)
        .order_by(Response.clock, Response.delivery_id)
    )
    moved = [(row.id, number) for number, row in enumerate(versions, 1) if row.number != number]
    for sign in (-1, 1):  # no two have one number, not even in between
        for version_id, number in moved:
            connection.execute(update(Response).where(Response.id == version_id).values(number=sign * number))


def write_version(
    connection: Connection,
    version_id: UUID,
    number: int,
    digest: str,
    delivery: Received,
    callback: Callback,
    result: Result,
) -> None:
    """One response version with its inline annotations."""
    row = version_row(version_id, number, digest, delivery, callback, result)
    connection.execute(insert(connection, Response).values(**row))
    write_annotations(connection, version_id, 0, result.annotations)


def version_row(
    version_id: UUID, number: int, digest: str, delivery: Received, callback: Callback, result: Result
) -> dict[str, Any]:
    """The columns of a response version."""
    return {
        "id": version_id,
        "task_id": callback.task_id,
        "number": number,
        "digest": digest,
        "event": callback.event,
        "delivery_id": delivery.id,
        "clock": callback.clock or delivery.received_at,
        "received_at": delivery.received_at,
        "response": callback.response,
        **_understood(result),
    }


def _understood(result: Result) -> dict[str, Any]:
    """The columns of a version that depend on how well its response is understood."""
    return {
        "error": result.error,
        "answer": result.answer,
        "flags": result.flags or None,
        "annotation_count": len(result.annotations),
        "artifact_count": len(result.artifacts),
    }


def write_artifacts(connection: Connection, version_id: UUID, task_id: str, result: Result) -> list[UUID]:
    """One row for each file that the response points to, and the jobs that fetch them."""
    if not result.artifacts:
        return []
    rows = [
        {
            "id": new_id(),
            "response_id": version_id,
            "task_id": task_id,
            "ordinal": artifact.ordinal,
            "role": artifact.role,
            "url": artifact.url,
            "state": "pending",
        }
        for artifact in result.artifacts
    ]
    connection.execute(insert(connection, Artifact), rows)
    return jobs.ask(connection, jobs.FETCH, [str(row["id"]) for row in rows])


def understand_again(
    connection: Connection,
    task_id: str,
    type_name: str | None,
    params: dict[str, Any] | None,
    version_id: UUID | None = None,
) -> list[UUID]:
    """Replace what was understood of the task's versions, or of one: its type became known, or the code knows more.

    Files that are still pointed to at the same address keep their rows and what was read from them.
    """
    asked: list[UUID] = []
    versions = select(Response.id, Response.response).where(Response.task_id == task_id)
    if version_id is not None:
        versions = versions.where(Response.id == version_id)
    for known_id, response in connection.execute(versions).all():
        result = understand(type_name, response, params)
        files = connection.execute(
            select(Artifact.ordinal, Artifact.role, Artifact.url, Artifact.annotation_count)
            .where(Artifact.response_id == known_id)
            .order_by(Artifact.ordinal)
        ).all()
        same_files = [(file.ordinal, file.role, file.url) for file in files] == [
            tuple(ref) for ref in result.artifacts
        ]
        connection.execute(
            delete(Annotation).where(
                Annotation.response_id == known_id, Annotation.file == 0 if same_files else true()
            )
        )
        write_annotations(connection, known_id, 0, result.annotations)
        understood = _understood(result)
        if same_files:
            understood["annotation_count"] += sum(file.annotation_count or 0 for file in files)
            asked += measure_again(connection, known_id)
        else:
            gone = connection.scalars(
                delete(Artifact).where(Artifact.response_id == known_id).returning(Artifact.id)
            )
            jobs.drop(connection, jobs.FETCH, map(str, gone))
            asked += write_artifacts(connection, known_id, task_id, result)
        connection.execute(update(Response).where(Response.id == known_id).values(**understood))
    return asked


def join_follow_up(connection: Connection, task: Mapping[str, Any]) -> str | None:
    """Tell the follow-up that asked for this task how it goes; its unique_id, or None when nobody here asked for it.

    Found by unique_id, so that a callback which overtakes the answer to the create call finds it as well.
    """
    unique_id: str | None = task["follow_up"] or task["unique_id"]
    if unique_id is None:
        return None
    failed = task["status"] == "error"
    if task["response_id"] is not None and not failed:
        failed = bool(
            connection.scalar(select(Response.error.is_not(None)).where(Response.id == task["response_id"]))
        )
    if failed:
        state = "error"
    elif task["status"] == "canceled":
        state = "canceled"
    else:
        state = "completed" if task["response_id"] is not None else "created"
    statement = (
        update(FollowUp)
        .where(
            FollowUp.unique_id == unique_id,
            FollowUp.environment == task["environment"],
            or_(FollowUp.task_id.is_(None), FollowUp.task_id == task["task_id"]),
        )
        .values(
            state=state, task_id=task["task_id"], created_at=func.coalesce(FollowUp.created_at, from_now())
        )
    )
    return unique_id if connection.execute(statement).rowcount else None


def update_batch(connection: Connection, callback: Callback, delivery: Received) -> None:
    """A body that names only a batch: the newest one is what the batch is."""
    clock = callback.clock or delivery.received_at
    statement = insert(connection, Batch).values(
        environment=callback.environment,
        name=callback.batch,
        status=callback.status,
        clock=clock,
    )
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["environment", "name"],
            set_={"status": new.status, "clock": new.clock},
            where=or_(Batch.clock.is_(None), Batch.clock <= new.clock),
        )
    )
