"""Load a task as the workflows see it: its row, its current response and the follow-up that created it, as one view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, bindparam, or_, select

from models import Annotation, Artifact, Delivery, FollowUp, Response, WorkflowPause
from pipeline.db.compiled import Record, connected, fetch_one
from pipeline.db.ids import created_at, format_timestamp, utcnow
from pipeline.db.sizes import charge_annotations
from pipeline.db.tables import TASKS
from pipeline.receive.ordering import TYPED_KEYS
from scale.annotations import Annotation as Value
from scale.annotations import flat_object
from scale.task_types.base import INDEX_IMAGE_ROLES, ROW_ROLES
from workflows.definition.recipes import stored_files
from workflows.planning.reasons import Reason, ReasonCode
from workflows.planning.view import Source, View, view

MAX_RESULT_AGE = timedelta(days=7)
"""Follow-ups of a result that is replayed later than this after it was received are held."""
MAX_NAMED_FILES = 3


class ContentPurged(LookupError):
    """Raised when a task that planning would read was purged: nothing may be created from what is left of it."""


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """A task as planning loaded it. A plan is stored only if `key` still equals `snapshot_key`."""

    view: View
    key: tuple[Any, ...]
    response_id: UUID | None
    delivery_id: UUID | None = None  # that brought the newest response
    source_response_id: UUID | None = None  # of the follow-up that created this task
    received_at: datetime | None = None  # of the newest delivery, or of a replay after it
    workflow_is_paused: bool = False  # whether any workflow is


def snapshot_key(connection: Connection, task_id: str) -> tuple[Any, ...]:
    """Lock the task's row and return the columns that planning depends on."""
    return tuple(connection.execute(_KEY, {"task": task_id}).one())


_KEY = (
    select(TASKS.c.clock_delivery_id, TASKS.c.response_id, TASKS.c.status, TASKS.c.review_status)
    .where(TASKS.c.task_id == bindparam("task"))
    .with_for_update()
)


def load_snapshot(
    database: Connection | Engine, task_id: str, *, parents: bool = True
) -> TaskSnapshot | None:
    """Load a task as it is now; None while a file of its current response is pending.

    `parents` says whether the view gets its `parent`: see Workflows.needs_parents. Raises ContentPurged.
    """
    task = fetch_one(database, _CURRENT, {"task": task_id})
    if task is None or task["has_pending_files"]:
        return None
    _refuse_purged(task)
    source, depth, planned_from = _source(database, task)
    loaded = _view(
        database,
        task,
        task["response_id"],
        source=source,
        depth=depth,
        parent=load_parent(database, source.task_id, planned_from) if parents and source else None,
        previous=_load_previous(database, source) if source else None,
        held=_held(task),
    )
    key = (task["clock_delivery_id"], task["response_id"], task["status"], task["review_status"])
    return TaskSnapshot(
        loaded,
        key,
        task["response_id"],
        task["latest_response_delivery_id"],
        planned_from,
        _last_received(task),
        task["workflow_is_paused"],
    )


def last_received(connection: Connection, task_id: str) -> datetime | None:
    """Return when a task changed last; None if it is not known."""
    row = connection.execute(select(TASKS).where(TASKS.c.task_id == task_id)).mappings().one_or_none()
    return None if row is None else _last_received(dict(row))


def _last_received(task: Record) -> datetime | None:
    """Return when the task changed last: the receipt of the newest delivery that changed it, or a replay."""
    deliveries = (task[name] for name in _DELIVERY_COLUMNS if task[name] is not None)
    times = [*map(created_at, deliveries), *([task["replayed_at"]] if task["replayed_at"] else [])]
    return max(times, default=None)


_DELIVERY_COLUMNS = (
    "clock_delivery_id", "described_delivery_id", "latest_response_delivery_id", "recalled_delivery_id",
)  # fmt: skip


def load_parent(database: Connection | Engine, task_id: str, response_id: UUID | None) -> View | None:
    """Load a task with the response that its follow-ups were planned from, whatever came later. Raises ContentPurged."""
    task = fetch_one(database, _AT_RESPONSE, {"task": task_id, "response": response_id})
    if task is None:
        return None
    _refuse_purged(task)
    source, depth, planned_from = _source(database, task)
    parent = load_parent(database, source.task_id, planned_from) if source else None
    return _view(database, task, response_id, source=source, depth=depth, parent=parent)


def _load_previous(database: Connection | Engine, source: Source) -> View | None:
    """Load the attempt that a retry replaces, with the one before it and so on. Raises ContentPurged."""
    if source.attempt == 1:
        return None
    replaced = fetch_one(
        database, _REPLACED, {"first": source.first_unique_id, "attempt": source.attempt - 1}
    )
    if replaced is None or replaced["task_id"] is None:
        return None
    snapshot = load_snapshot(database, replaced["task_id"], parents=False)
    return snapshot.view if snapshot else None


_REPLACED = select(FollowUp.task_id).where(
    or_(FollowUp.unique_id == bindparam("first"), FollowUp.first_unique_id == bindparam("first")),
    FollowUp.attempt == bindparam("attempt"),
)


def _refuse_purged(task: Record) -> None:
    if task["purged_at"] is not None:
        raise ContentPurged(f"task {task['task_id']} was purged on {task['purged_at']:%Y-%m-%d}")


def _task_query(response_id: Any) -> Any:
    """Build the query of a task with one response, its delivery and the states of its files."""
    files = select(Artifact.id).where(Artifact.response_id == response_id)
    return (
        select(
            TASKS,
            Response.response,
            files.where(Artifact.state == "pending").exists().label("has_pending_files"),
            files.where(Artifact.state == "failed").exists().label("has_failed_files"),
            files.where(Artifact.annotation_count > 0).exists().label("has_annotation_files"),
            Delivery.kind.label("how"),
            Delivery.may_create,
            Delivery.received_at,
            select(WorkflowPause.workflow).exists().label("workflow_is_paused"),
        )
        .select_from(TASKS)
        .outerjoin(Response, Response.id == response_id)
        .outerjoin(Delivery, Delivery.id == TASKS.c.latest_response_delivery_id)
        .where(TASKS.c.task_id == bindparam("task"))
    )


_CURRENT = _task_query(TASKS.c.response_id)
_AT_RESPONSE = _task_query(bindparam("response", type_=TASKS.c.response_id.type))


def _view(database: Connection | Engine, task: Record, response_id: UUID | None, **around: Any) -> View:
    annotations = missing_files = None
    if response_id and task["has_annotation_files"]:
        annotations = lazy_annotations(database.engine, response_id)
    if response_id and (task["has_pending_files"] or task["has_failed_files"]):
        with connected(database) as connection:
            missing_files = describe_missing_files(connection, response_id)
    return view(
        task_object(task),
        task["response"],
        environment=task["environment"],
        annotations=annotations,
        missing_files=missing_files,
        recalled=task["latest_response_id"] is not None and response_id is None,
        review=task["review_status"],
        **around,
    )


def describe_missing_files(connection: Connection, response_id: UUID) -> str | None:
    """Return why the response's annotations are incomplete; None if no file that holds annotations is missing.

    A segmentation is complete with one of its two index images.
    """
    statement = (
        select(Artifact.role, Artifact.state, Artifact.reason)
        .where(Artifact.response_id == response_id, Artifact.role.in_((*ROW_ROLES, *INDEX_IMAGE_ROLES)))
        .order_by(Artifact.ordinal)
    )
    files = connection.execute(statement).all()
    has_index = any(file.state == "stored" and file.role in INDEX_IMAGE_ROLES for file in files)
    missing = [
        file
        for file in files
        if file.state != "stored" and not (has_index and file.role in INDEX_IMAGE_ROLES)
    ]
    if not missing:
        return None
    reasons = (
        f"the file {file.role} {'could not be read' if file.state == 'failed' else 'is being fetched'}"
        f"{f': {file.reason}' if file.reason else ''}"
        for file in missing[:MAX_NAMED_FILES]
    )
    more = f"; and {len(missing) - MAX_NAMED_FILES} more" if len(missing) > MAX_NAMED_FILES else ""
    return f"{'; '.join(reasons)}{more}"


def task_object(task: Record) -> dict[str, Any]:
    """Return Scale's own task object, rebuilt from the row."""
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
    """Return a function that loads the annotations of result files when an expression needs them: there may be a million."""

    def read() -> list[dict[str, Any]]:
        with engine.begin() as connection:
            return annotations_of_files(connection, response_id)

    return read


def annotations_of_files(connection: Connection, response_id: UUID) -> list[dict[str, Any]]:
    """Return the annotations that were read from result files, in Scale's own form, flat."""
    columns = (
        Annotation.type,
        Annotation.label,
        Annotation.uuid,
        Annotation.frame,
        Annotation.attributes,
        Annotation.geometry,
    )
    in_files = (Annotation.response_id == response_id, Annotation.file > 0)
    charge_annotations(connection, *in_files)
    rows = connection.execute(
        select(*columns).where(*in_files).order_by(Annotation.file, Annotation.position)
    )
    return [
        flat_object(Value(0, row.type, row.label, row.uuid, row.frame, row.attributes, row.geometry, None))
        for row in rows
    ]


def _source(database: Connection | Engine, task: Record) -> tuple[Source | None, int, UUID | None]:
    """Return the follow-up that created this task, the task's depth, and the response that it followed."""
    if task["follow_up_unique_id"] is None:
        return None, 0, None
    created_by = fetch_one(database, _CREATED_BY, {"follow_up": task["follow_up_unique_id"]})
    if created_by is None:
        return None, 0, None
    source = Source(
        created_by["workflow"],
        created_by["step"],
        created_by["unique_id"],
        created_by["source_task_id"],
        created_by["source_annotation"],
        created_by["digest"],
        created_by["request"],
        stored_files(created_by["files"]),
        created_by["first_unique_id"],
        created_by["attempt"],
    )
    return source, created_by["depth"], created_by["source_response_id"]


_CREATED_BY = (
    select(FollowUp.__table__, Response.digest)
    .outerjoin(Response, Response.id == FollowUp.source_response_id)
    .where(FollowUp.unique_id == bindparam("follow_up"))
)


def _held(task: Record) -> Reason | None:
    """Return why a result that was imported or reconciled, or an old one that is replayed, creates nothing by itself."""
    if task["how"] is None:
        return None
    if not task["may_create"]:
        command = "import" if task["how"] == ReasonCode.IMPORTED else "reconcile"
        return Reason(ReasonCode(task["how"]), f"the result came by `{command}` without --create")
    age = utcnow() - task["received_at"]
    if age <= MAX_RESULT_AGE:
        return None
    return Reason(ReasonCode.AGE, f"the result was replayed {age.days} days after it was received")
