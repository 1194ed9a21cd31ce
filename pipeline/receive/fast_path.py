"""The usual callback, the first one of its task, in one statement: PostgreSQL's shortcut of what receive.py does in steps.

Everything hangs on the insertion of the task's row. When it is there already nothing is written at all, and the caller
goes the long way; so both ways end in the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from models import Annotation, Delivery, Job, Response, Task
from pipeline.db.annotation_rows import COLUMNS, FROM_ARRAYS, arrays
from pipeline.db.engine import AUTOCOMMIT
from pipeline.db.errors import safe_message
from pipeline.db.ids import new_id
from pipeline.db.json import dumps
from pipeline.jobs import queue
from pipeline.receive.ordering import task_changes
from pipeline.receive.rows import TASKS, DeliveryMeta, delivery_row, version_row
from scale.envelope import ABSENT, Callback, InvalidCallback, response_digest
from scale.task_types import parse_response

log = logging.getLogger(__name__)

EMPTY_TASK: Mapping[str, Any] = dict.fromkeys(TASKS.c.keys())
"""The row of a task that nobody has heard of."""

_delivery_columns = ", ".join(column.name for column in Delivery.__table__.columns if column.name != "body")


def _one(table: type, alias: str) -> str:
    return f"jsonb_populate_record(NULL::{table.__tablename__}, %s::jsonb) AS {alias}"  # type: ignore[attr-defined]


STATEMENT = f"""
WITH task AS (
    INSERT INTO {Task.__tablename__} SELECT new.* FROM {_one(Task, "new")} ON CONFLICT (task_id) DO NOTHING RETURNING 1
), delivery AS (
    INSERT INTO {Delivery.__tablename__} ({_delivery_columns}, body)
    SELECT {_delivery_columns}, %s FROM task, {_one(Delivery, "new")}
), response AS (
    INSERT INTO {Response.__tablename__} SELECT new.* FROM task, {_one(Response, "new")} WHERE new.id IS NOT NULL
), annotations AS (
    INSERT INTO {Annotation.__tablename__} ({COLUMNS})
    SELECT %s::uuid, 0, {FROM_ARRAYS} FROM task, jsonb_array_elements(%s::jsonb) AS row
), job AS (
    INSERT INTO {Job.__tablename__} (id, kind, key, subject, state, run_at, created_at)
    SELECT new.id, new.kind, new.key, new.subject, 'ready', clock_timestamp(), clock_timestamp()
    FROM task, {_one(Job, "new")} WHERE new.id IS NOT NULL
)
SELECT count(*) FROM task
"""


def insert_first_callback(
    engine: Engine,
    delivery: DeliveryMeta,
    body: bytes,
    headers: Mapping[str, str],
    reading: Callback | InvalidCallback | None,
    has_workflow_for: Callable[[str | None], bool],
) -> list[UUID] | None:
    """Take the first callback of a task in, when nothing about it is special; the jobs that must follow.

    None, with nothing written, when something is: then the long way knows what to do.
    """
    if engine.dialect.name != "postgresql" or not isinstance(reading, Callback):
        return None
    task = reading.task
    if not reading.task_id or task is None or task.type is None or task.unique_id is not None:
        return None
    try:
        version_id, response, annotations = None, {}, "[]"
        if reading.response is not ABSENT:
            result = parse_response(task.type, reading.response, task.params)
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
            **task_changes(EMPTY_TASK, reading, moment, version_id),
        }
        job = queue.new_job_row(queue.PLAN, reading.task_id) if has_workflow_for(task.type) else {}
        values = (
            dumps(row),
            body,
            dumps(delivery_row(delivery, body, headers, reading)),
            dumps(response),
            version_id,
            annotations,
            dumps(job),
        )
    except Exception as failure:
        log.info("delivery %s goes the long way: %s", delivery.id, safe_message(failure))
        return None
    # Not within a `try`: who gets no connection here gets none for the long way, after waiting once more.
    with engine.connect() as connection:
        connection = connection.execution_options(**AUTOCOMMIT)
        try:
            new = connection.exec_driver_sql(STATEMENT, values).scalar()
        except Exception as refused:
            log.info("delivery %s goes the long way: %s", delivery.id, safe_message(refused))
            return None
    if not new:
        return None
    return [job["id"]] if job else []
