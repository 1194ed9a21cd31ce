"""Read tasks with their current response, source, follow-ups and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    RowMapping,
    Select,
    String,
    bindparam,
    cast,
    func,
    or_,
    select,
    union_all,
)

from models import Annotation, FollowUp, Response, Task
from pipeline.db.sizes import read_row, text_length
from pipeline.db.streams import stream_json
from pipeline.db.tables import has_tag
from pipeline.operations.queries.artifacts import artifacts_of_response
from pipeline.operations.queries.filters import Filters, NotFound, equal, equals_indexed
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, Record, count_up_to, paginate

MAX_FOLLOW_UPS = 1000
REVIEWS = ("accepted", "rejected", "fixed", "commented")
MAX_SEARCHED = 1_000
"""Tasks whose text is searched, of those that match the other filters: a search takes the same time in a table of any size."""
LISTED = tuple(column for column in Task.__table__.c if column.key not in ("params", "extra"))

SHOWN_EXTRAS = ("attachmentS3Downloads", "prior_responses")
"""Keys of Scale's task object without a column that the API shows under the same names."""
DETAIL = (
    *LISTED,
    Task.params,
    Task.extra,
    Response.error,
    Response.answer,
    Response.warnings,
    Response.artifact_count,
)


def list_tasks(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return tasks, the most recently discovered first.

    Filters: type, project, batch, unique_id, status, environment, tag, updated_since, updated_before, completed_since,
    completed_before, review, label (of an annotation of the current response), and workflow and step that created it.
    """
    statement = _with_current_response(*LISTED).where(*_conditions(connection, filters))
    page = paginate(connection, statement, [Task.id], limit=limit, cursor=cursor)
    sources = _sources(connection, [row["follow_up_unique_id"] for row in page.rows])
    rows = [{**_summary(row), "source": sources.get(row["follow_up_unique_id"])} for row in page.rows]
    return Page(rows, page.next_cursor)


def count_tasks(connection: Connection, filters: Filters) -> int:
    """Return how many tasks match, counted up to MAX_COUNTED."""
    return count_up_to(connection, select(Task.id).where(*_conditions(connection, filters)))


def get_task(connection: Connection, task_id: str) -> Record:
    """Return one task with its current response, source, first follow-ups and files. Raises NotFound."""
    row = read_row(connection, _detail(), task=task_id)
    if row is None:
        raise task_not_found(task_id)
    answer, extra = row["answer"], row["extra"] or {}
    return {
        **{name: extra.get(name) for name in SHOWN_EXTRAS},
        **_summary(row),
        "warnings": row["warnings"] or [],
        "global_attributes": answer.get("global_attributes") if isinstance(answer, dict) else None,
        "source": _source(connection, row["follow_up_unique_id"]),
        "follow_ups": _follow_ups(connection, task_id),
        "artifacts": artifacts_of_response(connection, row["response_id"]) if row["artifact_count"] else [],
    }


@cache
def _detail() -> Select[Any]:
    return _with_current_response(*DETAIL).where(Task.task_id == bindparam("task"))


def counts_by_project(connection: Connection, limit: int = 500) -> list[Record]:
    """Return {project, status, count} of all tasks, by project and status."""
    statement = (
        select(Task.project, Task.status, func.count().label("count"))
        .group_by(Task.project, Task.status)
        .order_by(Task.project, Task.status)
    )
    return [dict(row) for row in connection.execute(statement.limit(limit)).mappings()]


def counts_by_batch(connection: Connection, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return batch → status → number of its tasks."""
    found: dict[str, dict[str, int]] = {}
    for name in names:
        statement = (
            select(Task.status, func.count()).where(equals_indexed(Task.batch, name)).group_by(Task.status)
        )
        found[name] = {status or "unknown": count for status, count in connection.execute(statement)}
    return found


def seen_types_and_projects(connection: Connection) -> tuple[set[str], set[str]]:
    """Return every task type and every project that a stored task has."""
    rows = connection.execute(select(Task.type, Task.project).distinct()).all()
    return {type_ for type_, _ in rows if type_}, {project for _, project in rows if project}


def has_task(connection: Connection, task_id: str) -> bool:
    """Return whether the task is known."""
    return connection.scalar(select(Task.task_id).where(Task.task_id == task_id)) is not None


def stored_characters(connection: Connection, task_id: str) -> int:
    """Return the size of a task's parameters and current response as text."""
    size = text_length(Task.params, Task.metadata_, Response.response)
    statement = select(size).select_from(Task).outerjoin(Response, Response.id == Task.response_id)
    return connection.scalar(statement.where(Task.task_id == task_id)) or 0


def stream_params(reader: Engine, task_id: str) -> Iterator[bytes]:
    """Yield the parameters of a task as JSON text, which is not parsed on the way. Raises ValueGone when a callback changes them."""
    with reader.begin() as connection:
        clock = connection.scalar(select(Task.clock_delivery_id).where(Task.task_id == task_id))
    is_unchanged = Task.clock_delivery_id.is_not_distinct_from(clock)
    return stream_json(reader, Task.params, Task.task_id == task_id, is_unchanged)


def task_not_found(task_id: str) -> NotFound:
    """Return the error for a task_id that is not known."""
    return NotFound(f"no task {task_id} is known")


def ids_changed_since(connection: Connection, moment: datetime) -> Sequence[str]:
    """Return the task_ids whose newest event is at `moment` or later, oldest event first."""
    return connection.scalars(select(Task.task_id).where(Task.clock >= moment).order_by(Task.clock)).all()


def _conditions(connection: Connection, filters: Filters) -> list[Any]:
    found = list(_filter_conditions(connection, filters))
    if (search := filters.get("search")) is not None:
        found.append(_matches(connection, search, found))
    return found


def _filter_conditions(connection: Connection, filters: Filters) -> Iterator[Any]:
    for name in ("type", "project", "batch", "unique_id"):
        if (value := filters.get(name)) is not None:
            yield equals_indexed(getattr(Task, name), value)
    yield from equal(Task, ("status", "environment"), filters)
    for column, name in ((Task.updated_at, "updated"), (Task.completed_at, "completed")):
        if (since := filters.get(f"{name}_since")) is not None:
            yield column >= since
        if (before := filters.get(f"{name}_before")) is not None:
            yield column < before
    if (review := filters.get("review")) is not None:
        yield Task.review_status == review
    if filters.get("workflow") is not None or filters.get("step") is not None:
        made = select(FollowUp.unique_id).where(*equal(FollowUp, ("workflow", "step"), filters))
        yield Task.follow_up_unique_id.in_(made)
    if (label := filters.get("label")) is not None:
        of_response = Annotation.response_id == Task.response_id
        yield select(Annotation.position).where(of_response, Annotation.label == label).exists()
    if (tag := filters.get("tag")) is not None:
        yield has_tag(connection, tag)


def _matches(connection: Connection, search: str, conditions: Sequence[Any]) -> Any:
    """Match a task_id or unique_id, or a part of the instruction, metadata or params of the MAX_SEARCHED newest tasks of `conditions`.

    Three searches instead of one condition with OR, which no index answers: it would read the whole table.
    """
    part = f"%{search.translate(_LIKE_ESCAPES)}%"
    columns = (Task.id, Task.instruction, Task.metadata_, Task.params)
    newest = select(*columns).where(*conditions).order_by(Task.id.desc()).limit(MAX_SEARCHED).subquery()
    texts = (newest.c.instruction, cast(newest.c.metadata_, String), cast(newest.c.params, String))
    # SQLite's LIKE ignores the case of ASCII by itself; ilike would lower every text first.
    like = "ilike" if connection.dialect.name == "postgresql" else "like"
    contains = or_(*(getattr(text, like)(part, escape="\\") for text in texts))
    found = union_all(
        select(Task.id).where(Task.task_id == search),
        select(Task.id).where(equals_indexed(Task.unique_id, search)),
        select(newest.c.id).where(contains),
    )
    return Task.id.in_(found)


_LIKE_ESCAPES = str.maketrans({"%": "\\%", "_": "\\_", "\\": "\\\\"})


def _with_current_response(*columns: Any) -> Select[Any]:
    number = Response.number.label("response_number")
    count = func.coalesce(Response.annotation_count, 0).label("annotation_count")
    return (
        select(*columns, number, count).select_from(Task).outerjoin(Response, Response.id == Task.response_id)
    )


def _summary(row: Mapping[str, Any] | RowMapping) -> Record:
    review = {
        "status": row["review_status"],
        "comments": row["review_comments"] or [],
        "reviewed_at": row["reviewed_at"],
    }
    return {**row, "review": review}


def _source(connection: Connection, unique_id: str | None) -> Record | None:
    return _sources(connection, [unique_id]).get(unique_id)


def _sources(connection: Connection, unique_ids: Sequence[str | None]) -> dict[str | None, Record]:
    """Return {unique_id of a follow-up: the step that made it, and from what}."""
    named = [unique_id for unique_id in unique_ids if unique_id is not None]
    if not named:
        return {}
    statement = select(
        FollowUp.workflow,
        FollowUp.step,
        FollowUp.source_task_id.label("task_id"),
        FollowUp.source_annotation.label("annotation"),
        FollowUp.unique_id,
    ).where(FollowUp.unique_id.in_(named))
    return {row["unique_id"]: dict(row) for row in connection.execute(statement).mappings()}


def _follow_ups(connection: Connection, task_id: str) -> list[Record]:
    statement = (
        select(
            FollowUp.unique_id,
            FollowUp.workflow,
            FollowUp.step,
            FollowUp.state,
            FollowUp.task_id,
            FollowUp.reason,
        )
        .where(FollowUp.source_task_id == task_id)
        .order_by(FollowUp.id)
        .limit(MAX_FOLLOW_UPS)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]
