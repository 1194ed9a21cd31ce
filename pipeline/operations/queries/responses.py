"""Read response versions and annotations of a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Select, bindparam, func, select

from models import Annotation, Artifact, Response, Task
from pipeline.db.memory_budget import charge
from pipeline.db.sizes import ANNOTATION_VALUES, ROW_BYTES, if_small, read_row, text_length
from pipeline.db.streams import stream_json
from pipeline.operations.queries.artifacts import artifacts_of_response
from pipeline.operations.queries.filters import Filters, Gone, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, Record, paginate
from pipeline.operations.queries.tasks import task_not_found
from scale.annotations import Annotation as AnnotationValue
from scale.frame_sources import frame_source

MAX_NUMBER = 2**31 - 1
MAX_VERSIONS = 1000
MAX_ADDRESS_CHARACTERS = 8192
MAX_COMPARED = 100_000
MAX_COMPARED_CHARACTERS = 16 * 1024 * 1024
"""Of two versions together."""
STATUSES = {"recalled": "pending", "error": "error", "canceled": "canceled"}
"""Status of the task by event; every other event is of a completed task."""

SUMMARY = (
    Response.id,
    Response.number,
    Response.event,
    Response.received_at,
    Response.delivery_id,
    Response.annotation_count,
    Response.digest,
    Response.warnings,
    Response.response,
    text_length(Response.response).label("response_characters"),
)
VALUE = (
    Annotation.position,
    Annotation.type,
    Annotation.label,
    Annotation.uuid,
    Annotation.frame,
    Annotation.attributes,
    Annotation.geometry,
    Annotation.warning,
)


class TooManyAnnotations(ValueError):
    """Raised when two versions are too large to be compared. The message gives the bound."""


def list_responses(
    connection: Connection, task_id: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return every distinct response of a task, newest first. Raises NotFound."""
    current = _current_id(connection, task_id)
    statement = select(*SUMMARY).where(Response.task_id == task_id)
    page = paginate(connection, statement, [Response.number], limit=limit, cursor=cursor)
    return Page([_summary(row, current) for row in page.rows], page.next_cursor)


def get_response(connection: Connection, task_id: str, number: int) -> Record:
    """Return one version with its answer, error and files. Raises NotFound."""
    current = _current_id(connection, task_id)
    row = read_row(connection, _DETAIL, task=task_id, number=min(number, MAX_NUMBER))
    if row is None:
        raise _no_version(connection, task_id, number)
    artifacts = artifacts_of_response(connection, row["id"]) if row["artifact_count"] else []
    return {**_summary(row, current), "artifacts": artifacts}


_DETAIL = select(*SUMMARY, Response.error, Response.answer, Response.artifact_count).where(
    Response.task_id == bindparam("task"), Response.number == bindparam("number")
)


def list_annotations(
    connection: Connection,
    task_id: str,
    filters: Filters,
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> Page:
    """Return the annotations of one version by position, those of the response itself before those of its files.

    Filters: response (a version's number; the current one by default), type, label, uuid, frame, position; on_frame, which
    includes those that belong to no frame. Raises NotFound, and Gone if the task was purged.
    """
    refuse_purged(connection, task_id)
    response_id = _current_id(connection, task_id)
    if (number := filters.get("response")) is not None:
        response_id = _version(connection, task_id, number, Response.id)["id"]
    if response_id is None:
        return Page([], None)
    statement = _complete_annotations(connection, response_id, *VALUE, Annotation.file).where(
        *equal(Annotation, ("type", "label", "uuid", "frame", "position"), filters)
    )
    if (frame := filters.get("on_frame")) is not None:
        statement = statement.where((Annotation.frame == frame) | Annotation.frame.is_(None))
    key = [Annotation.file, Annotation.position]
    page = paginate(connection, statement, key, limit=limit, cursor=cursor, ascending=True)
    task = connection.execute(select(Task.type, if_small(Task.params)).where(Task.task_id == task_id)).one()
    return Page([_with_frame_source(row, task) for row in page.rows], page.next_cursor)


def versions_of_delivery(connection: Connection, task_id: str, delivery_id: UUID) -> list[int]:
    """Return the numbers of the versions of a task that came with a delivery."""
    statement = select(Response.number).where(
        Response.task_id == task_id, Response.delivery_id == delivery_id
    )
    return list(connection.scalars(statement.order_by(Response.number)))


def last_frame(connection: Connection, task_id: str, number: int) -> int | None:
    """Return the highest frame of a version's annotations; None where no annotation has one. Raises NotFound."""
    response_id = _version(connection, task_id, number, Response.id)["id"]
    return connection.scalar(select(func.max(Annotation.frame)).where(Annotation.response_id == response_id))


def compared_annotations(
    connection: Connection, task_id: str, before: int, after: int
) -> tuple[list[AnnotationValue], list[AnnotationValue]]:
    """Return the annotations of two versions for a comparison.

    Raises NotFound, Gone and TooManyAnnotations, and within a memory budget ReadTooLarge.
    """
    refuse_purged(connection, task_id)
    columns = (Response.id, Response.annotation_count)
    versions = [_version(connection, task_id, number, *columns) for number in (before, after)]
    if (count := sum(version["annotation_count"] for version in versions)) > MAX_COMPARED:
        raise TooManyAnnotations(
            f"responses {before} and {after} have {count:,} annotations; at most {MAX_COMPARED:,} are compared"
        )
    size = sum(_characters(connection, version["id"]) for version in versions)
    if size > MAX_COMPARED_CHARACTERS:
        raise TooManyAnnotations(
            f"the annotations of responses {before} and {after} have {size:,} characters;"
            f" at most {MAX_COMPARED_CHARACTERS:,} are compared"
        )
    charge(count * ROW_BYTES + size)
    old, new = (_values(connection, version["id"]) for version in versions)
    return old, new


def _characters(connection: Connection, response_id: UUID) -> int:
    statement = _complete_annotations(connection, response_id, func.sum(text_length(*ANNOTATION_VALUES)))
    return int(connection.scalar(statement) or 0)


def _values(connection: Connection, response_id: UUID) -> list[AnnotationValue]:
    statement = _complete_annotations(connection, response_id, *VALUE)
    rows = connection.execute(statement.order_by(Annotation.file, Annotation.position))
    return [AnnotationValue(*values) for values in rows]


def list_versions(connection: Connection, task_id: str) -> list[Mapping[str, Any]]:
    """Return {number, event} of the newest MAX_VERSIONS versions of a task, newest first."""
    statement = select(Response.number, Response.event).where(Response.task_id == task_id)
    rows = connection.execute(statement.order_by(Response.number.desc()).limit(MAX_VERSIONS)).mappings()
    return [dict(row) for row in rows]


def small_response(connection: Connection, task_id: str, number: int, limit: int) -> Any:
    """Return the response of a version; None if it has more than `limit` characters. Raises NotFound."""
    return _version(connection, task_id, number, if_small(Response.response, limit))["response"]


def response_id(connection: Connection, task_id: str, number: int) -> UUID:
    """Return the id of a version, which stays when an older version that arrives late changes its number.

    Raises NotFound, and Gone if the task was purged.
    """
    refuse_purged(connection, task_id)
    found: UUID = _version(connection, task_id, number, Response.id)["id"]
    return found


def stream_response(reader: Engine, version_id: UUID) -> Iterator[bytes]:
    """Yield one response as JSON text, which is not parsed on the way. Raises ValueGone."""
    return stream_json(reader, Response.response, Response.id == version_id)


def refuse_purged(connection: Connection, task_id: str) -> None:
    """Raise Gone if the content of the task was purged."""
    purged_at = connection.scalar(select(Task.purged_at).where(Task.task_id == task_id))
    if purged_at is not None:
        raise Gone(f"the content of task {task_id} was purged on {purged_at:%Y-%m-%d}")


def count_by_label(connection: Connection, response_id: UUID) -> list[tuple[str, str | None]]:
    """Return (type, label) of each annotation of a version."""
    statement = select(Annotation.type, Annotation.label).where(Annotation.response_id == response_id)
    return [(row.type, row.label) for row in connection.execute(statement)]


def _current_id(connection: Connection, task_id: str) -> UUID | None:
    """Return the id of the current version; None if there is none. Raises NotFound for an unknown task."""
    row = connection.execute(select(Task.response_id).where(Task.task_id == task_id)).one_or_none()
    if row is None:
        raise task_not_found(task_id)
    found: UUID | None = row.response_id
    return found


def _version(connection: Connection, task_id: str, number: int, *columns: Any) -> Mapping[str, Any]:
    statement = select(*columns).where(
        Response.task_id == task_id, Response.number == min(number, MAX_NUMBER)
    )
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise _no_version(connection, task_id, number)
    return dict(row)


def _no_version(connection: Connection, task_id: str, number: int) -> NotFound:
    if not connection.scalar(select(Task.id).where(Task.task_id == task_id)):
        return task_not_found(task_id)
    return NotFound(f"task {task_id} has no response {number}")


def _complete_annotations(connection: Connection, response_id: UUID, *columns: Any) -> Select[Any]:
    """Select the annotations of a version. Those of a file count once all of them are written."""
    statement = select(*columns).where(Annotation.response_id == response_id)
    unread = select(Artifact.ordinal).where(Artifact.response_id == response_id, Artifact.state != "stored")
    if files := connection.scalars(unread).all():
        statement = statement.where(Annotation.file.not_in(files))
    return statement


def _summary(row: Mapping[str, Any], current: UUID | None) -> Record:
    return {
        **row,
        "status": STATUSES.get(row["event"], "completed"),
        "is_current": row["id"] == current,
        "warnings": row["warnings"] or [],
    }


def _with_frame_source(row: Mapping[str, Any], task: Any) -> Record:
    """Add the time and the image of the annotation's frame, where the task's parameters give them."""
    if row["frame"] is None:
        return {**row, "time": None, "image": None}
    time, image = frame_source(task.params or {}, row["frame"], task.type, row["geometry"])
    is_short = image is not None and len(image) <= MAX_ADDRESS_CHARACTERS  # it is repeated in every row
    return {**row, "time": time, "image": image if is_short else None}
