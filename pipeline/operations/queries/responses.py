"""Read response versions and annotations of a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, Text, cast, func, select

from models import Annotation, Artifact, Response, Task
from pipeline.operations.queries.artifacts import artifacts_of_response
from pipeline.operations.queries.filters import Filters, Gone, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, Record, paginate
from pipeline.operations.queries.sizes import if_small, text_length
from pipeline.operations.queries.tasks import task_not_found
from scale.annotations import Annotation as AnnotationValue
from scale.frame_sources import frame_source

MAX_NUMBER = 2**31 - 1
MAX_COMPARED = 200_000
STATUSES = {"recalled": "pending", "error": "error", "canceled": "canceled"}
"""Status of the task by event; every other event is of a completed task."""

SHOWN_RESPONSE, SHOWN_WARNINGS = if_small(Response.response), if_small(Response.warnings)
SUMMARY = (
    Response.id,
    Response.number,
    Response.event,
    Response.received_at,
    Response.delivery_id,
    Response.annotation_count,
    Response.digest,
    SHOWN_WARNINGS,
    SHOWN_RESPONSE,
    text_length(Response.response).label("response_characters"),
)
LARGE = (Annotation.attributes, Annotation.geometry, Annotation.label, Annotation.uuid)
MAX_COMPARED_CHARACTERS = 4 * 1024 * 1024
"""JSON text of the annotations of one version. 40,000 boxes have as much; empty objects take 24 bytes of memory for each character."""
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
    """Raised when a version has more annotations than are compared. The message gives both numbers."""


def list_responses(
    connection: Connection, task_id: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return every distinct response of a task, newest first. Raises NotFound."""
    current = _current_id(connection, task_id)
    statement = select(*SUMMARY).where(Response.task_id == task_id)
    page = paginate(
        connection,
        statement,
        [Response.number],
        limit=limit,
        cursor=cursor,
        large=(SHOWN_RESPONSE, SHOWN_WARNINGS),
    )
    return Page([_summary(row, current) for row in page.rows], page.next_cursor)


def get_response(connection: Connection, task_id: str, number: int) -> Record:
    """Return one version with its answer, error and files. Raises NotFound."""
    current = _current_id(connection, task_id)
    row = _version(connection, task_id, number, *SUMMARY, if_small(Response.error), if_small(Response.answer))
    return {**_summary(row, current), "artifacts": artifacts_of_response(connection, row["id"])}


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
    page = paginate(connection, statement, key, limit=limit, cursor=cursor, ascending=True, large=LARGE)
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


def annotation_values(connection: Connection, task_id: str, number: int) -> list[AnnotationValue]:
    """Return the annotations of a version for a comparison. Raises NotFound, Gone and TooManyAnnotations."""
    refuse_purged(connection, task_id)
    row = _version(connection, task_id, number, Response.id, Response.annotation_count)
    if row["annotation_count"] > MAX_COMPARED:
        raise TooManyAnnotations(
            f"response {number} has {row['annotation_count']:,} annotations; at most {MAX_COMPARED:,} are compared"
        )
    statement = _complete_annotations(connection, row["id"], *VALUE)
    total = _complete_annotations(connection, row["id"], func.sum(text_length(*LARGE)))
    if (connection.scalar(total) or 0) > MAX_COMPARED_CHARACTERS:
        raise TooManyAnnotations(
            f"the annotations of response {number} are too large to be compared; compare exports instead"
        )
    rows = connection.execute(statement.order_by(Annotation.file, Annotation.position))
    return [AnnotationValue(*values) for values in rows]


def response_text(connection: Connection, task_id: str, number: int) -> str:
    """Return one response as JSON text, which is not parsed on the way. Raises NotFound, and Gone if the task was purged."""
    refuse_purged(connection, task_id)
    row = _version(connection, task_id, number, cast(Response.response, Text).label("text"))
    text: str = row["text"] or "null"
    return text


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
        if not connection.scalar(select(Task.id).where(Task.task_id == task_id)):
            raise task_not_found(task_id)
        raise NotFound(f"task {task_id} has no response {number}")
    return dict(row)


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
    return {**row, "time": time, "image": image}
