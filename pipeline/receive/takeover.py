"""Let a live delivery take over a task that only test deliveries named.

The test callback key is the weaker one: its holder must not be able to claim the id of a live task before its first
callback arrives. Scale marks its own test tasks, so a live delivery without that mark is the authority.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Connection, delete, select, update

from models import Annotation, Artifact, Delivery, FollowUp, Join, Response
from pipeline.access.audit import log_action
from pipeline.db.tables import TASKS
from pipeline.jobs import kinds, queue

log = logging.getLogger(__name__)

ACTOR = "weighbridge"
REASON = "a live delivery named the same task: what the test delivery said of it was discarded"


def take_over_task(connection: Connection, task_id: str) -> dict[str, Any]:
    """Discard what test deliveries wrote of a task, quarantine them, and return the task's row as an empty live one.

    The caller holds the task's row locked.
    """
    responses = select(Response.id).where(Response.task_id == task_id)
    connection.execute(delete(Annotation).where(Annotation.response_id.in_(responses)))
    files = connection.scalars(
        delete(Artifact).where(Artifact.task_id == task_id).returning(Artifact.id)
    ).all()
    queue.delete_pending(connection, kinds.FETCH, map(str, files))
    connection.execute(delete(Response).where(Response.task_id == task_id))
    follow_ups = connection.scalars(
        delete(FollowUp)
        .where(FollowUp.source_task_id == task_id, FollowUp.environment == "test")
        .returning(FollowUp.unique_id)
    ).all()
    queue.delete_pending(connection, kinds.CREATE, follow_ups)
    connection.execute(delete(Join).where(Join.source_task_id == task_id))
    test_deliveries = update(Delivery).where(
        Delivery.task_id == task_id, Delivery.environment == "test", Delivery.status == "processed"
    )
    quarantined = connection.execute(test_deliveries.values(status="quarantined", reason=REASON)).rowcount
    details = {"deliveries": quarantined, "follow_ups": sorted(follow_ups)}
    log_action(connection, ACTOR, "task.take_over", task_id, details)
    log.warning("live delivery takes over a test task", extra={"task_id": task_id, "deliveries": quarantined})
    return _reset(connection, task_id)


def _reset(connection: Connection, task_id: str) -> dict[str, Any]:
    kept = ("task_id", "id")
    values: dict[str, Any] = {column.name: None for column in TASKS.c if column.name not in kept}
    values |= {"environment": "live", "response_count": 0}
    statement = update(TASKS).where(TASKS.c.task_id == task_id).values(values).returning(TASKS)
    return dict(connection.execute(statement).mappings().one())
