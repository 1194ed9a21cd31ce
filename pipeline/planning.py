"""A task whose level changed is looked at: the workflows decide, and what they want is recorded with its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping, select

from models import Annotation, Artifact, Delivery, FollowUp, Response
from pipeline import follow_ups, jobs
from pipeline.database import now
from pipeline.jobs import Job
from pipeline.receive import TASKS
from pipeline.service import Service
from pipeline.versions import TYPED
from workflows.plan import plan
from workflows.view import Source, View, view

OLD = timedelta(days=7)
"""A result that was brought in later than this after it happened does not buy tasks by itself."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A task as planning saw it. `standing` tells whether it still stands so when the plan is recorded."""

    view: View
    standing: tuple[Any, ...]
    response_id: UUID | None


def plan_task(service: Service, job: Job) -> None:
    """Plan what follows from a task as it stands now. The unique_ids make looking again free."""
    with service.reader.begin() as connection:
        seen = look(connection, job.subject)
    wanted = []
    if seen is not None:
        for workflow in service.workflows.loaded:
            wanted += plan(seen.view, workflow, service.settings.unique_id_prefix)
    with service.engine.begin() as connection:
        if seen is not None and seen.standing == standing(connection, job.subject):
            follow_ups.record(connection, service, seen, wanted)
        jobs.finish(connection, job)  # a change meanwhile has asked for the job again


def standing(connection: Connection, task_id: str) -> tuple[Any, ...]:
    """Lock the task's row; what tells one level of it from another."""
    columns = (TASKS.c.clock_delivery_id, TASKS.c.response_id, TASKS.c.status, TASKS.c.review_status)
    return tuple(
        connection.execute(select(*columns).where(TASKS.c.task_id == task_id).with_for_update()).one()
    )


def look(connection: Connection, task_id: str) -> Seen | None:
    """The view of a task for the workflows; None while a file of its current response has still to be read."""
    task = connection.execute(select(TASKS).where(TASKS.c.task_id == task_id)).mappings().one_or_none()
    if task is None:
        return None
    response, annotations = None, None
    if task["response_id"] is not None:
        files = connection.execute(
            select(Artifact.state, Artifact.annotation_count).where(
                Artifact.response_id == task["response_id"]
            )
        ).all()
        if any(state == "pending" for state, _ in files):
            return None
        response = connection.scalar(select(Response.response).where(Response.id == task["response_id"]))
        if any(count for _, count in files):
            annotations = annotations_of_files(connection, task["response_id"])
    source, depth = _source(connection, task)
    seen = view(
        task_object(task),
        response,
        environment=task["environment"],
        annotations=annotations,
        recalled=task["latest_response_id"] is not None and task["response_id"] is None,
        review=task["review_status"],
        source=source,
        depth=depth,
        held=_held(connection, task),
    )
    key = (task["clock_delivery_id"], task["response_id"], task["status"], task["review_status"])
    return Seen(seen, key, task["response_id"])


def task_object(task: RowMapping) -> dict[str, Any]:
    """Scale's own task object, put together again from the row."""
    found = {name: task[name] for name in TYPED if name in task and task[name] is not None}
    if task["review_status"] is not None:
        found["customer_review_status"] = task["review_status"]
    if task["review_comments"] is not None:
        found["customer_review_comments"] = task["review_comments"]
    for name in ("created_at", "updated_at", "completed_at"):
        if name in found:
            found[name] = found[name].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {**(task["extra"] or {}), **found}


def annotations_of_files(connection: Connection, response_id: UUID) -> list[dict[str, Any]]:
    """The annotations that were read from result files, in Scale's own form, flat."""
    columns = (
        Annotation.type,
        Annotation.label,
        Annotation.uuid,
        Annotation.frame,
        Annotation.attributes,
        Annotation.geometry,
    )
    rows = connection.execute(
        select(*columns)
        .where(Annotation.response_id == response_id, Annotation.file > 0)
        .order_by(Annotation.file, Annotation.position)
    )
    found = []
    for type_name, label, uuid, frame, attributes, geometry in rows:
        named = {"label": label, "uuid": uuid, "attributes": attributes}
        given = {name: value for name, value in named.items() if value is not None}
        found.append({"type": type_name, "frame": frame, **given, **geometry})
    return found


def _source(connection: Connection, task: RowMapping) -> tuple[Source | None, int]:
    """The follow-up that asked for this task, and how far the task is from the first one."""
    if task["follow_up"] is None:
        return None, 0
    asked = connection.execute(
        select(
            FollowUp.workflow,
            FollowUp.step,
            FollowUp.unique_id,
            FollowUp.source_task_id,
            FollowUp.source_annotation,
            FollowUp.request,
            FollowUp.depth,
            Response.digest,
        )
        .outerjoin(Response, Response.id == FollowUp.source_response_id)
        .where(FollowUp.unique_id == task["follow_up"])
    ).one_or_none()
    if asked is None:
        return None, 0
    source = Source(
        asked.workflow,
        asked.step,
        asked.unique_id,
        asked.source_task_id,
        asked.source_annotation,
        asked.digest,
        asked.request,
    )
    return source, asked.depth


def _held(connection: Connection, task: RowMapping) -> str | None:
    """Why an old result that was brought in waits for a person before it costs money."""
    delivery = connection.execute(
        select(Delivery.kind, Delivery.clock, Delivery.received_at).where(
            Delivery.id == task["latest_response_delivery_id"]
        )
    ).one_or_none()
    if delivery is None:
        return None
    happened = delivery.received_at if delivery.kind == "callback" else delivery.clock or delivery.received_at
    age = now() - happened
    if age <= OLD:
        return None
    how = "replayed" if delivery.kind == "callback" else delivery.kind
    return f"the result was {how} {age.days} days after it happened"
