"""Fast path: insert the first callback of a task with one PostgreSQL statement.

The statement writes nothing if the task's row exists already; the caller then takes the general path of receive.py. It
commits by itself, and goes straight to the driver, unless subscribers are to be notified in the same transaction. A
property test holds both paths to the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard
from uuid import UUID

from sqlalchemy import Connection

from models import Annotation, Delivery, DeliveryBody, Job, Response, Task
from pipeline.db.annotation_rows import COLUMNS, FROM_ARRAYS, arrays
from pipeline.db.errors import log_fallback
from pipeline.db.ids import new_id
from pipeline.db.json import dumps
from pipeline.db.tables import TASKS, column_names, record
from pipeline.jobs import kinds, queue
from pipeline.receive.events import DeliveryEvents
from pipeline.receive.ordering import task_changes
from pipeline.receive.rows import DeliveryMeta, Parsed, delivery_row
from pipeline.receive.versions import Version, version_row
from pipeline.service import Service
from scale.canonical import canonical_json, digest_of
from scale.envelope import ABSENT, Callback
from scale.task_types import parse_response

EMPTY_TASK: Mapping[str, Any] = dict.fromkeys(TASKS.c.keys())
"""The row of a task without any delivery."""


_task_columns = column_names(Task)
_delivery_columns = column_names(Delivery)
_response_columns = column_names(Response, but="response")

STATEMENT = f"""
WITH task AS (
    INSERT INTO {Task.__tablename__} ({_task_columns})
    SELECT {_task_columns} FROM {record(Task, "new", "%(task)s")} ON CONFLICT (task_id) DO NOTHING RETURNING 1
), delivery AS (
    INSERT INTO {Delivery.__tablename__} ({_delivery_columns})
    SELECT {_delivery_columns} FROM task, {record(Delivery, "new", "%(delivery)s")} RETURNING id
), body AS (
    INSERT INTO {DeliveryBody.__tablename__} (delivery_id, body) SELECT id, %(body)s::bytea FROM delivery
), response AS (
    INSERT INTO {Response.__tablename__} ({_response_columns}, response)
    SELECT {_response_columns}, %(response)s::json FROM task, {record(Response, "new", "%(version)s")} WHERE id IS NOT NULL
), annotations AS (
    INSERT INTO {Annotation.__tablename__} ({COLUMNS})
    SELECT %(version_id)s::uuid, 0, {FROM_ARRAYS} FROM task, jsonb_array_elements(%(annotations)s::jsonb) AS row
), job AS (
    INSERT INTO {Job.__tablename__} (id, kind, key, subject, state, run_at, created_at)
    SELECT new.id, new.kind, new.key, new.subject, 'ready', clock_timestamp(), clock_timestamp()
    FROM task, {record(Job, "new", "%(job)s")} WHERE new.id IS NOT NULL
)
SELECT count(*) FROM task
"""


class FirstCallback(NamedTuple):
    """What the statement inserts."""

    parameters: dict[str, Any]
    job_ids: list[UUID]


def applies(callback: Parsed, dialect: str) -> TypeGuard[Callback]:
    """Return whether this may be the first callback of a task, on a database that has the statement.

    A task with a unique_id may belong to a follow-up, and one without a type is requested from Scale: both take the
    general path.
    """
    return (
        dialect == "postgresql"
        and isinstance(callback, Callback)
        and bool(callback.task_id)
        and callback.task is not None
        and callback.task.type is not None
        and callback.task.unique_id is None
    )


def insert_first_callback(
    service: Service, delivery: DeliveryMeta, body: bytes, headers: Mapping[str, str], callback: Callback
) -> list[UUID] | None:
    """Insert the callback with everything that follows from it. Return the jobs to dispatch.

    Returns None, with nothing written, if the task exists, if its response points to files, or if anything fails: the
    general path knows what to do then. Raises if the pool has no free connection, because the general path would only wait for
    one a second time.
    """
    from pipeline.db.driver import execute, pooled_connection  # psycopg, which SQLite does not need

    events = DeliveryEvents(service.subscriptions)
    try:
        first = _rows(service, delivery, body, headers, callback)
    except Exception as failure:
        log_fallback(failure, delivery.log_fields(callback))
        return None
    if first is None:
        return None
    engine = service.engine
    with engine.connect() if events.has_subscribers else pooled_connection(engine) as connection:
        try:
            if isinstance(connection, Connection):
                return _insert_and_publish(connection, first, events, delivery, callback)
            ((inserted,),) = execute(engine, connection, STATEMENT, first.parameters)
            return first.job_ids if inserted else None
        except Exception as fault:
            log_fallback(fault, delivery.log_fields(callback))
            return None


def _rows(
    service: Service, delivery: DeliveryMeta, body: bytes, headers: Mapping[str, str], callback: Callback
) -> FirstCallback | None:
    """Build the parameters of the statement; None for a response that points to files."""
    task = callback.task
    assert task is not None  # see applies()
    assert callback.task_id is not None
    version_id: UUID | None = None
    response: dict[str, Any] = {}
    content: str | None = None
    annotations = "[]"
    if callback.response is not ABSENT:
        parsed = parse_response(task.type, callback.response, task.params)
        if parsed.artifacts:
            return None
        canonical = canonical_json(callback.response)
        content = canonical.decode()
        version = Version(new_id(), digest_of(canonical), is_new=True)
        version_id, response = version.id, version_row(version, 1, delivery, callback, parsed)
        annotations = arrays(parsed.annotations)
    row = {
        "task_id": callback.task_id,
        "id": new_id(),
        "environment": callback.environment,
        "response_count": 1 if response else 0,
        **task_changes(EMPTY_TASK, callback, delivery.order_key(callback), version_id),
    }
    job = queue.new_job_row(kinds.PLAN, callback.task_id) if service.has_workflow_for(task.type) else {}
    parameters = {
        "task": dumps(row),
        "delivery": dumps(delivery_row(delivery, body, headers, callback)),
        "body": body,
        "response": content,
        "version": dumps(response),
        "version_id": version_id,
        "annotations": annotations,
        "job": dumps(job),
    }
    return FirstCallback(parameters, [job["id"]] if job else [])


def _insert_and_publish(
    connection: Connection,
    first: FirstCallback,
    events: DeliveryEvents,
    delivery: DeliveryMeta,
    callback: Callback,
) -> list[UUID] | None:
    """Run the statement and publish the events of the delivery in one transaction."""
    with connection.begin():
        if not connection.exec_driver_sql(STATEMENT, first.parameters).scalar():
            return None
        return first.job_ids + events.publish(connection, delivery, callback)
