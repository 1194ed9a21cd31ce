"""What waits for a result file: the planning of its task, of the tasks below it, and requests that need the file itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, literal, or_, select, update

from models import Artifact, FollowUp, Task
from pipeline.artifacts.rows import File
from pipeline.db.follow_up_states import HELD, PLANNED, transition
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from workflows.planning.reasons import ReasonCode

FOLLOW_UPS = FollowUp.__table__.c
IS_INCOMPLETE = (FOLLOW_UPS.state == HELD, FOLLOW_UPS.reason_code == ReasonCode.INCOMPLETE)


def enqueue_plan_if_complete(connection: Connection, service: Service, known: dict[str, Any]) -> None:
    """Enqueue planning of the task if this was the last pending file of its current response."""
    if known["current"] != known["response_id"] or not (
        known["follow_up_unique_id"] or service.has_workflow_for(known["type"])
    ):
        return
    pending = select(func.count()).where(
        Artifact.response_id == known["response_id"], Artifact.state == "pending"
    )
    if not connection.scalar(pending):
        queue.enqueue(connection, kinds.PLAN, [known["task_id"]])


def enqueue_incomplete_descendants(connection: Connection, task_id: str) -> None:
    """Enqueue planning of the tasks below this one whose follow-ups are held because a file was missing: their
    expressions may use `parent`."""
    below = _tasks_below(task_id)
    incomplete = (
        select(FOLLOW_UPS.source_task_id)
        .join(below, below.c.task_id == FOLLOW_UPS.source_task_id)
        .where(*IS_INCOMPLETE, FOLLOW_UPS.source_task_id != task_id)
        .distinct()
    )
    queue.enqueue(connection, kinds.PLAN, connection.scalars(incomplete))


def enqueue_same_url(connection: Connection, file: File) -> None:
    """Enqueue the files of the response that have the URL of this one, whose content is stored now: they were not fetched."""
    waiting = connection.scalars(select(Artifact.id).where(*_same_url(file), Artifact.state != "stored"))
    queue.enqueue(connection, kinds.FETCH, [str(artifact_id) for artifact_id in waiting])


def fail_same_url(connection: Connection, file: File, reason: str) -> None:
    """Mark the files of the response as failed that wait for the content of this one, which could not be fetched."""
    waiting = update(Artifact).where(*_same_url(file), Artifact.state == "pending")
    connection.execute(waiting.values(state="failed", reason=reason))


def _same_url(file: File) -> tuple[ColumnElement[bool], ...]:
    return (
        Artifact.response_id == file.response_id,
        Artifact.url == file.url,
        Artifact.id != file.id,
        Artifact.sha256.is_(None),
    )


def release_requests(connection: Connection, task_id: str) -> None:
    """Create the follow-ups whose request was held because it needs a file of this task: of its own follow-ups, of those
    below it, and of joins over its siblings. One that needs another missing file is held again.
    """
    below = _tasks_below(task_id)
    created_by = select(Task.follow_up_unique_id).where(Task.task_id == task_id).scalar_subquery()
    source = select(FOLLOW_UPS.source_task_id).where(FOLLOW_UPS.unique_id == created_by)
    of_related = or_(
        FOLLOW_UPS.source_task_id.in_(select(below.c.task_id)), FOLLOW_UPS.source_task_id.in_(source)
    )
    columns = (FOLLOW_UPS.unique_id, FOLLOW_UPS.environment)
    held = select(*columns).where(*IS_INCOMPLETE, FOLLOW_UPS.files.is_not(None), of_related)
    rows = connection.execute(held.order_by(FOLLOW_UPS.unique_id)).all()
    released = set(transition(connection, [row.unique_id for row in rows], PLANNED, previous=(HELD,)))
    for row in rows:
        if row.unique_id in released:
            queue.enqueue(connection, kinds.CREATE, [row.unique_id], queue=row.environment)


def _tasks_below(task_id: str) -> Any:
    """Return a query of this task and of all that follow-ups created below it."""
    below = select(literal(task_id).label("task_id")).cte("below", recursive=True)
    children = select(FOLLOW_UPS.task_id).where(
        FOLLOW_UPS.source_task_id == below.c.task_id, FOLLOW_UPS.task_id.is_not(None)
    )
    return below.union(children)
