"""The members of a dataset version as a stream: tasks in order, each with the annotations of its response version.

Read in pages by keyset, each page by itself: the members are fixed and responses never change, so no transaction has to
last as long as the export does, and PgBouncer may give each statement another connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, RowMapping, func, select

from models import Annotation as AnnotationRow
from models import Artifact, DatasetItem, Response
from models import Task as TaskRow
from pipeline.db.bodies import read_body
from pipeline.db.json import loads
from pipeline.db.sizes import charge_annotations
from pipeline.receive.ordering import task_columns
from scale.annotations import Annotation
from scale.envelope import RESULT_KEYS_OUTSIDE_RESPONSE, parse_callback, parse_json

PAGE_TASKS = 200
PAGE_ANNOTATIONS = 20_000
"""Annotations in memory at once; one task with more of them comes alone."""


@dataclass(slots=True)
class Task:
    """One member. The task is described as it was when the version was created."""

    position: int
    """0, 1, … within the version."""
    task_id: str
    type: str | None
    status: str | None
    project: str | None
    batch: str | None
    environment: str
    split: str
    metadata: dict[str, Any]
    params: dict[str, Any]
    response_id: UUID
    response_number: int
    annotations: list[Annotation] = field(default_factory=list)
    answer: Any = None
    """The response without its annotations, where `answers` asked for it."""
    source: dict[str, Any] | None = None
    """Scale's task object with the response as it was received, where `sources` asked for it."""
    files: tuple[int, ...] = ()
    """The file of each annotation: 0 in the response itself, else the ordinal of the artifact."""
    is_deleted: bool = False
    """Whether its result was purged; nothing of it is left but its ids."""


def read_tasks(
    reader: Engine,
    version_id: UUID,
    *,
    annotations: bool = True,
    answers: bool = False,
    sources: bool = False,
) -> Iterator[Task]:
    """Yield every member of a version by position. In memory are at most PAGE_TASKS of them and PAGE_ANNOTATIONS annotations."""
    after = -1
    while True:
        with reader.begin() as connection:
            rows = _page(connection, version_id, after, answers)
            described = _described(connection, rows)
        if not rows:
            return
        after = rows[-1]["position"]
        for group in _groups(rows, annotations):
            tasks = [_task(row, described.get(row["position"], row)) for row in group]
            if annotations:
                with reader.begin() as connection:
                    _add_annotations(connection, tasks)
            if sources:
                with reader.begin() as connection:
                    _add_sources(connection, group, tasks)
            yield from tasks


DESCRIBED = ("type", "project", "batch", "metadata", "params")
"""Columns of a task that its task object fills, and that exports use."""


def _page(connection: Connection, version_id: UUID, after: int, answers: bool) -> Sequence[RowMapping]:
    statement = (
        select(
            DatasetItem.position,
            DatasetItem.task_id,
            DatasetItem.status,
            DatasetItem.split,
            DatasetItem.response_id,
            DatasetItem.response_number,
            DatasetItem.delivery_id,
            Response.annotation_count,
            Response.delivery_id.label("response_delivery_id"),
            TaskRow.described_delivery_id,
            TaskRow.environment,
            *(TaskRow.__table__.c[name] for name in DESCRIBED),
            *([Response.answer] if answers else []),
        )
        .outerjoin(TaskRow, TaskRow.task_id == DatasetItem.task_id)
        .outerjoin(Response, Response.id == DatasetItem.response_id)
        .where(DatasetItem.version_id == version_id, DatasetItem.position > after)
        .order_by(DatasetItem.position)
        .limit(PAGE_TASKS)
    )
    return connection.execute(statement).mappings().all()


def _described(connection: Connection, rows: Sequence[RowMapping]) -> dict[int, dict[str, Any]]:
    """Return by position the former description of each task that was described again since the version was created."""
    found = {}
    for row in rows:
        if row["delivery_id"] == row["described_delivery_id"]:
            continue
        values: dict[str, Any] = dict.fromkeys(DESCRIBED)
        body = read_body(connection, row["delivery_id"])
        if body and (task := parse_callback(body, "live").task) is not None:
            values |= {name: value for name, value in task_columns(task).items() if name in DESCRIBED}
        found[row["position"]] = values
    return found


def _groups(rows: Sequence[RowMapping], annotations: bool) -> Iterator[list[RowMapping]]:
    """Yield the rows of a page, as many at once as have no more than PAGE_ANNOTATIONS."""
    group: list[RowMapping] = []
    count = 0
    for row in rows:
        more = row["annotation_count"] or 0
        if group and annotations and count + more > PAGE_ANNOTATIONS:
            yield group
            group, count = [], 0
        group.append(row)
        count += more
    if group:
        yield group


def _task(row: RowMapping, described: RowMapping | dict[str, Any]) -> Task:
    return Task(
        position=row["position"],
        task_id=row["task_id"],
        type=described["type"],
        status=row["status"],
        project=described["project"],
        batch=described["batch"],
        environment=row["environment"] or "live",
        split=row["split"],
        metadata=described["metadata"] or {},
        params=described["params"] or {},
        response_id=row["response_id"],
        response_number=row["response_number"],
        answer=row.get("answer"),
        is_deleted=row["annotation_count"] is None,
    )


_COLUMNS = "response_id, file, position, type, label, uuid, frame, {attributes}, {geometry}, warning"
_ROWS_BATCH_SIZE = 2_000


def _add_annotations(connection: Connection, tasks: Sequence[Task]) -> None:
    found = annotations_of(connection, [task.response_id for task in tasks])
    for task in tasks:
        if task.response_id in found:
            task.annotations, files = found[task.response_id]
            task.files = tuple(files)


def annotations_of(
    connection: Connection, response_ids: Sequence[UUID]
) -> dict[UUID, tuple[list[Annotation], list[int]]]:
    """Return the annotations of each response by file and position, and the file of each.

    Reads past SQLAlchemy's result types, and JSON as text: of a million rows they would take most of the time.
    """
    charge_annotations(connection, AnnotationRow.response_id.in_(response_ids))
    postgresql = connection.dialect.name == "postgresql"
    ids: Any = [response_id if postgresql else response_id.hex for response_id in response_ids]
    where = "= ANY(%s)" if postgresql else f"IN ({', '.join('?' * len(ids))})"
    cast = "{}::text" if postgresql else "{}"
    columns = _COLUMNS.format(attributes=cast.format("attributes"), geometry=cast.format("geometry"))
    rows: Any = connection.exec_driver_sql(
        f"SELECT {columns} FROM annotations WHERE response_id {where} ORDER BY response_id, file, position",
        (ids,) if postgresql else tuple(ids),
    )
    found: dict[UUID, tuple[list[Annotation], list[int]]] = {}
    make = tuple.__new__
    last, annotations, files = None, list[Annotation](), list[int]()
    for row in _rows(rows.cursor):
        response_id, file, position, type_, label, uuid, frame, attributes, geometry, warning = row
        if response_id != last:
            last = response_id
            annotations, files = [], []
            found[response_id if postgresql else UUID(response_id)] = annotations, files
        if attributes is not None:
            attributes = loads(attributes)
        values = (position, type_, label, uuid, frame, attributes, loads(geometry), warning)
        annotations.append(make(Annotation, values))
        files.append(file)
    return found


def _rows(cursor: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a database cursor, which are read many at a time."""
    while rows := cursor.fetchmany(_ROWS_BATCH_SIZE):
        yield from rows


def _add_sources(connection: Connection, rows: Sequence[RowMapping], tasks: Sequence[Task]) -> None:
    for row, task in zip(rows, tasks, strict=True):
        bodies = {
            delivery_id: _raw_task(connection, delivery_id)
            for delivery_id in {row["delivery_id"], row["response_delivery_id"]}
        }
        task.source = _with_response(
            bodies[row["delivery_id"]], bodies[row["response_delivery_id"]], row["task_id"], row["status"]
        )


def _raw_task(connection: Connection, delivery_id: UUID | None) -> dict[str, Any]:
    """Return Scale's task object in a delivery, with the delivery's response in it; {} if there is neither."""
    if delivery_id is None:
        return {}
    body = read_body(connection, delivery_id)
    return task_object(body) if body else {}


def task_object(body: bytes) -> dict[str, Any]:
    """Return the task object in the bytes of a callback; what the callback says outside of it is put into it."""
    outer = parse_json(body)
    if not isinstance(outer, dict):
        return {}
    inner = outer.get("task")
    if not isinstance(inner, dict):
        return outer
    task = dict(inner)
    if outer.get("response") is not None:
        task["response"] = outer["response"]
    return task


def _with_response(
    task: dict[str, Any], answered: dict[str, Any], task_id: str, status: str | None
) -> dict[str, Any]:
    """Return the described task with the status and the response that the version has."""
    made = {
        name: value
        for name, value in task.items()
        if name not in ("response", "status", *RESULT_KEYS_OUTSIDE_RESPONSE)
    }
    made["task_id"] = task_id
    if status is not None:
        made["status"] = status
    for name in ("response", *RESULT_KEYS_OUTSIDE_RESPONSE):
        if name in answered:
            made[name] = answered[name]
    return made


def count(reader: Engine, version_id: UUID) -> int:
    """Return the number of members of a version."""
    with reader.begin() as connection:
        found = connection.scalar(select(func.count()).where(DatasetItem.version_id == version_id))
    return found or 0


def mask_sizes(connection: Connection, response_ids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """Return the width and height in pixels of the segmentation images of these responses."""
    statement = select(Artifact.response_id, Artifact.details).where(
        Artifact.response_id.in_(response_ids), Artifact.state == "stored"
    )
    found = {}
    for response_id, details in connection.execute(statement.order_by(Artifact.ordinal)):
        if details and isinstance(details.get("width"), int) and isinstance(details.get("height"), int):
            found[response_id] = (details["width"], details["height"])
    return found
