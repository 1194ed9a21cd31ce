"""The usual callback, the first one of its task, in one statement: PostgreSQL's shortcut of what receive.py does in steps.

Everything hangs on the insertion of the task's row. When it is there already nothing is written at all, and the caller
goes the long way; so both ways end in the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from models import Annotation, Delivery, Job, Response, Task
from pipeline.database import dumps
from pipeline.rows import COLUMNS, FROM_ARRAYS

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


def write_first(
    engine: Engine,
    task: Mapping[str, Any],
    delivery: Mapping[str, Any],
    body: bytes,
    response: Mapping[str, Any],
    annotations: str,
    job: Mapping[str, Any],
) -> bool:
    """Write the rows if the task is new; False, with nothing written, if it is not.

    Each mapping is a whole row (`response` and `job` may be empty: none); `annotations` is JSON as rows.arrays gives it.
    """
    rows = (
        dumps(task),
        body,
        dumps(delivery),
        dumps(response),
        response.get("id"),
        annotations,
        dumps(job),
    )
    with engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        return bool(connection.exec_driver_sql(STATEMENT, rows).scalar())
