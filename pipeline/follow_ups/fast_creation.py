"""Fast path: record a task that was created at Scale, and finish the job, with one PostgreSQL statement.

The statement writes nothing if the task's row exists already, because its callback came first; the caller then takes the
general path of task_creation.py. A property test holds both to the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError

from models import FollowUp, Job, Task
from pipeline.db.errors import log_fallback
from pipeline.db.follow_up_states import CANCELED, CREATED, ERROR, PLANNED
from pipeline.db.json import dumps
from pipeline.db.postgresql import fetch
from pipeline.events.subscriptions import FOLLOW_UP, has_subscriber
from pipeline.jobs import queue
from pipeline.service import Service

# A follow-up that was canceled during the call, or a lost lease, ends in the division by zero, which rolls the task back.
STATEMENT = f"""
WITH task AS (
    INSERT INTO {Task.__tablename__}
    SELECT new.* FROM jsonb_populate_record(NULL::{Task.__tablename__}, %(task)s::jsonb) AS new
    ON CONFLICT (task_id) DO NOTHING RETURNING task_id, environment, follow_up_unique_id
), linked AS (
    UPDATE {FollowUp.__tablename__} AS follow_up
    SET state = '{CREATED}', reason_code = NULL, reason = CASE WHEN reason_code IS NULL THEN reason END,
        task_id = task.task_id, created_at = coalesce(created_at, statement_timestamp())
    FROM task
    WHERE unique_id = task.follow_up_unique_id AND state = '{PLANNED}'
    AND follow_up.environment = task.environment AND follow_up.task_id IS NULL
    RETURNING 1
), finished AS (
    DELETE FROM {Job.__tablename__} USING linked
    WHERE id = %(job)s AND lease_owner = %(owner)s AND enqueue_count = %(enqueue_count)s
    RETURNING 1
)
SELECT CASE WHEN EXISTS (SELECT FROM task) THEN 1 / (SELECT count(*) FROM finished) ELSE 0 END
"""


def record_usual_creation(service: Service, job: queue.Job, task_row: Mapping[str, Any]) -> bool:
    """Insert the task, link its follow-up to it, and finish the job.

    Returns False, with nothing written, if that is not all that has to be done, or if anything fails: the general path knows
    what to do then.
    """
    if (
        service.engine.dialect.name != "postgresql"
        or task_row["status"] in (CANCELED, ERROR)
        or has_subscriber(service.subscriptions, FOLLOW_UP)
    ):
        return False
    try:
        parameters = {
            "task": dumps({"response_count": 0, **task_row}),
            "job": job.id,
            "owner": job.owner,
            "enqueue_count": job.enqueue_count,
        }
        ((is_recorded,),) = fetch(service.engine, STATEMENT, parameters)
    except (DBAPIError, TypeError) as fault:  # TypeError: JSON that only the general path can write
        log_fallback(fault, job.log_fields)
        return False
    return bool(is_recorded)
