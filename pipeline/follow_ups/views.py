"""A task as the workflows see it: its row, its current response and where it comes from, put together into one view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, RowMapping, bindparam, func, select

from models import Annotation, Artifact, Delivery, FollowUp, Response
from models.columns import UtcDateTime
from pipeline.db.ids import format_timestamp, utcnow
from pipeline.db.tables import TASKS
from pipeline.receive.ordering import TYPED_KEYS
from scale.annotations import Annotation as Value
from scale.annotations import flat_object
from workflows.definition.recipes import stored_files
from workflows.planning.reasons import Reason, ReasonCode
from workflows.planning.view import Source, View, view

MAX_RESULT_AGE = timedelta(days=7)
"""A result that was brought in later than this after it happened does not buy tasks by itself."""


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """A task as planning saw it. `standing` tells whether it still stands so when the plan is recorded."""

    view: View
    key: tuple[Any, ...]
    response_id: UUID | None
    source_response_id: UUID | None = None  # that the follow-up which made this task was planned from


def snapshot_key(connection: Connection, task_id: str) -> tuple[Any, ...]:
    """Lock the task's row; what tells one level of it from another."""
    columns = (TASKS.c.clock_delivery_id, TASKS.c.response_id, TASKS.c.status, TASKS.c.review_status)
    return tuple(
        connection.execute(select(*columns).where(TASKS.c.task_id == task_id).with_for_update()).one()
    )


def load_snapshot(connection: Connection, task_id: str, *, parents: bool = True) -> TaskSnapshot | None:
    """A task as it stands now; None while a file of its current response has still to be read.

    `parents` says whether a view shall have its `parent`: see Workflows.needs_parents.
    """
    task = connection.execute(_CURRENT, {"task": task_id}).mappings().one_or_none()
    if task is None or task["unread"]:
        return None
    source, depth, planned_from = _source(connection, task)
    seen = _view(
        connection,
        task,
        task["response_id"],
        source=source,
        depth=depth,
        parent=load_parent(connection, source.task_id, planned_from) if parents and source else None,
        held=_held(task),
    )
    key = (task["clock_delivery_id"], task["response_id"], task["status"], task["review_status"])
    return TaskSnapshot(seen, key, task["response_id"], planned_from)


def load_parent(connection: Connection, task_id: str, response_id: UUID | None) -> View | None:
    """A task with one of its responses, whatever came later: what the follow-ups of that response were planned from."""
    task = (
        connection.execute(_AT_RESPONSE, {"task": task_id, "response": response_id}).mappings().one_or_none()
    )
    if task is None:
        return None
    source, depth, planned_from = _source(connection, task)
    parent = load_parent(connection, source.task_id, planned_from) if source else None
    return _view(connection, task, response_id, source=source, depth=depth, parent=parent)


def _task_query(response_id: Any) -> Any:
    """A task's row with one of its responses, and what stands about that: one question to the database, built once."""
    files = select(Artifact.id).where(Artifact.response_id == response_id)
    return (
        select(
            TASKS,
            Response.response,
            files.where(Artifact.state == "pending").exists().label("unread"),
            files.where(Artifact.annotation_count > 0).exists().label("in_files"),
            Delivery.kind.label("how"),
            func.coalesce(Delivery.clock, Delivery.received_at, type_=UtcDateTime()).label("happened_at"),
            Delivery.received_at,
        )
        .select_from(TASKS)
        .outerjoin(Response, Response.id == response_id)
        .outerjoin(Delivery, Delivery.id == TASKS.c.latest_response_delivery_id)
        .where(TASKS.c.task_id == bindparam("task"))
    )


_CURRENT = _task_query(TASKS.c.response_id)
_AT_RESPONSE = _task_query(bindparam("response", type_=TASKS.c.response_id.type))


def _view(connection: Connection, task: RowMapping, response_id: UUID | None, **around: Any) -> View:
    return view(
        task_object(task),
        task["response"],
        environment=task["environment"],
        annotations=lazy_annotations(connection.engine, response_id)
        if response_id and task["in_files"]
        else None,
        recalled=task["latest_response_id"] is not None and response_id is None,
        review=task["review_status"],
        **around,
    )


def task_object(task: RowMapping) -> dict[str, Any]:
    """Scale's own task object, put together again from the row."""
    found = {name: task[name] for name in TYPED_KEYS if name in TASKS.c and task[name] is not None}
    if task["review_status"] is not None:
        found["customer_review_status"] = task["review_status"]
    if task["review_comments"] is not None:
        found["customer_review_comments"] = task["review_comments"]
    for name in ("created_at", "updated_at", "completed_at"):
        if name in found:
            found[name] = format_timestamp(found[name])
    return {**(task["extra"] or {}), **found}


def lazy_annotations(engine: Engine, response_id: UUID) -> Callable[[], list[dict[str, Any]]]:
    """The annotations of result files, read once an expression asks for them: there may be a million, and no need of one."""

    def read() -> list[dict[str, Any]]:
        with engine.begin() as connection:
            return annotations_of_files(connection, response_id)

    return read


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
    return [
        flat_object(Value(0, row.type, row.label, row.uuid, row.frame, row.attributes, row.geometry, None))
        for row in rows
    ]


def _source(connection: Connection, task: RowMapping) -> tuple[Source | None, int, UUID | None]:
    """The follow-up that asked for this task, how far the task is from the first one, and the response that it followed."""
    if task["follow_up_unique_id"] is None:
        return None, 0, None
    columns = (
        FollowUp.workflow,
        FollowUp.step,
        FollowUp.unique_id,
        FollowUp.source_task_id,
        FollowUp.source_annotation,
        FollowUp.source_response_id,
        FollowUp.request,
        FollowUp.files,
        FollowUp.depth,
        FollowUp.first_unique_id,
        FollowUp.attempt,
        Response.digest,
    )
    asked = connection.execute(
        select(*columns)
        .outerjoin(Response, Response.id == FollowUp.source_response_id)
        .where(FollowUp.unique_id == task["follow_up_unique_id"])
    ).one_or_none()
    if asked is None:
        return None, 0, None
    source = Source(
        asked.workflow,
        asked.step,
        asked.unique_id,
        asked.source_task_id,
        asked.source_annotation,
        asked.digest,
        asked.request,
        stored_files(asked.files),
        asked.first_unique_id,
        asked.attempt,
    )
    return source, asked.depth, asked.source_response_id


def _held(task: RowMapping) -> Reason | None:
    """Return why an old result that was replayed, imported or reconciled waits for a person before it costs money."""
    if task["how"] is None:
        return None
    replayed = task["how"] == "callback"
    age = utcnow() - (task["received_at"] if replayed else task["happened_at"])
    if age <= MAX_RESULT_AGE:
        return None
    how = "replayed" if replayed else task["how"]
    return Reason(ReasonCode.AGE, f"the result was {how} {age.days} days after it happened")
