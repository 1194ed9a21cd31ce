"""The response versions of a task, their annotations, and what one version changed against another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields
from marshmallow.validate import Range
from sqlalchemy import Connection, RowMapping, Select, select

from app.api.artifacts import SHOWN as ARTIFACT_COLUMNS
from app.api.artifacts import Artifact as ArtifactSchema
from app.api.blueprint import Blueprint, service
from app.api.lists import ListQuery, OutputSchema, Record, Timestamp, list_schema, paginate
from app.api.problems import ProblemError
from app.api.tasks import missing
from models import Annotation, Artifact, Response, Task
from pipeline.operations.diff import diff
from scale.annotations import Annotation as Value
from scale.result_files import frame_source

blueprint = Blueprint("responses", "Response versions and annotations of a task")

MOST_COMPARED = 200_000
STATUSES = {"recalled": "pending", "error": "error", "canceled": "canceled"}
"""Status by event; every other event is of a completed task."""
WORD = fields.String(
    metadata={
        "description": "box polygon line point cuboid ellipse mask cuboid3d segment3d span event, or Scale's own word"
    }
)


class AnnotationSchema(OutputSchema):
    position = fields.Integer(metadata={"description": "Within its file, from 0"})
    uuid = fields.String(allow_none=True)
    type = WORD
    label = fields.String(allow_none=True)
    frame = fields.Integer(
        allow_none=True,
        metadata={"description": "Position of the frame in the file, or the file's own `key`"},
    )
    attributes = fields.Raw(allow_none=True)
    geometry = fields.Raw(metadata={"description": "Scale's own keys, pixels, origin top left"})
    file = fields.Integer(metadata={"description": "0: in the response itself; else that artifact's `file`"})
    warning = fields.String(allow_none=True, metadata={"description": "Why it was kept raw"})


class AnnotationInTime(AnnotationSchema):
    time = fields.Float(
        allow_none=True, metadata={"description": "Of a video's frame: seconds from the start of the video"}
    )
    image = fields.String(
        allow_none=True, metadata={"description": "Of a frame: the attachment that it is a part of"}
    )


class AnnotationQuery(ListQuery):
    response = fields.Integer(
        validate=Range(1, 2**31 - 1), metadata={"description": "Number of a version; default the current one"}
    )
    type = fields.String()
    label = fields.String()
    uuid = fields.String()
    frame = fields.Integer(validate=Range(-(2**63), 2**63 - 1))


class ResponseSummary(OutputSchema):
    number = fields.Integer()
    event = fields.String(
        metadata={"description": "What the first delivery of it told: completed, accepted, fixed …"}
    )
    status = fields.String(metadata={"description": "Of the task in that delivery"})
    received_at = Timestamp()
    is_current = fields.Boolean()
    delivery_id = fields.UUID()
    annotation_count = fields.Integer()
    digest = fields.String(
        metadata={"description": "sha256 over its canonical form: names it also when an older one comes late"}
    )
    warnings = fields.List(fields.Raw(), metadata={"description": "What was odd in it, in sentences"})
    response = fields.Raw(allow_none=True, metadata={"description": "As Scale sent it"})


class ResponseDetail(ResponseSummary):
    error = fields.Dict(allow_none=True)
    answer = fields.Raw(allow_none=True)
    artifacts = fields.List(fields.Nested(ArtifactSchema))


class DiffQuery(Schema):
    against = fields.Integer(
        validate=Range(1, 2**31 - 1),
        metadata={"description": "Number of the version to compare with; default the one before"},
    )


class Change(OutputSchema):
    before = fields.Nested(AnnotationSchema)
    after = fields.Nested(AnnotationSchema)
    matched_by = fields.String(metadata={"description": "uuid, geometry, overlap or distance"})
    score = fields.Float(
        allow_none=True, metadata={"description": "IoU (0 to 1) or distance, where they were matched by it"}
    )


class Diff(OutputSchema):
    number = fields.Integer()
    against = fields.Integer()
    counts = fields.Dict(keys=fields.String(), values=fields.Integer())
    added = fields.List(fields.Nested(AnnotationSchema))
    removed = fields.List(fields.Nested(AnnotationSchema))
    moved = fields.List(fields.Nested(Change))
    relabeled = fields.List(fields.Nested(Change))
    attributes_changed = fields.List(fields.Nested(Change))


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


@blueprint.get("/tasks/<string:task_id>/responses")
@blueprint.arguments(ListQuery, location="query")
@blueprint.response(200, list_schema(ResponseSummary))
def list_responses(query: Mapping[str, Any], task_id: str) -> Record:
    """Every distinct response of a task, newest first"""
    with service().reader.begin() as connection:
        current = _current(connection, task_id)
        found = paginate(
            connection, select(*SUMMARY).where(Response.task_id == task_id), [Response.number], query
        )
    return {**found, "data": [_summary(row, current) for row in found["data"]]}


@blueprint.get("/tasks/<string:task_id>/responses/<int:number>")
@blueprint.response(200, ResponseDetail)
def show_response(task_id: str, number: int) -> Record:
    """One version, with what is not geometry and its files"""
    with service().reader.begin() as connection:
        current = _current(connection, task_id)
        row = _version(connection, task_id, number, *SUMMARY, Response.error, Response.answer)
        files = select(*ARTIFACT_COLUMNS).where(Artifact.response_id == row["id"]).order_by(Artifact.ordinal)
        return {**_summary(row, current), "artifacts": connection.execute(files).mappings().all()}


@blueprint.get("/tasks/<string:task_id>/annotations")
@blueprint.arguments(AnnotationQuery, location="query")
@blueprint.response(200, list_schema(AnnotationInTime))
def list_annotations(query: Mapping[str, Any], task_id: str) -> Record:
    """Annotations of one version by position, those of the response itself before those of its files"""
    with service().reader.begin() as connection:
        response_id = _current(connection, task_id)
        if "response" in query:
            response_id = _version(connection, task_id, query["response"], Response.id)["id"]
        if response_id is None:
            return {"data": [], "next_cursor": None}
        statement = _whole(connection, response_id, *VALUE, Annotation.file)
        for name in ("type", "label", "uuid", "frame"):
            if name in query:
                statement = statement.where(getattr(Annotation, name) == query[name])
        found = paginate(connection, statement, [Annotation.file, Annotation.position], query, ascending=True)
        task = connection.execute(select(Task.type, Task.params).where(Task.task_id == task_id)).one()
        return {**found, "data": [_in_time(row, task) for row in found["data"]]}


def _in_time(row: Mapping[str, Any], task: Any) -> Record:
    """With the time and the image of its frame, as far as the task's parameters tell them."""
    if row["frame"] is None:
        return {**row, "time": None, "image": None}
    time, image = frame_source(task.params or {}, row["frame"], task.type)
    return {**row, "time": time, "image": image}


@blueprint.get("/tasks/<string:task_id>/responses/<int:number>/diff")
@blueprint.arguments(DiffQuery, location="query")
@blueprint.response(200, Diff)
def diff_responses(query: Mapping[str, Any], task_id: str, number: int) -> Record:
    """What version `number` changed against version `against`"""
    against = query.get("against", number - 1)
    if against < 1:
        raise ProblemError(400, "there is no version before the first; name one with `against`")
    with service().reader.begin() as connection:
        _current(connection, task_id)
        before = _values(connection, task_id, against)
        after = _values(connection, task_id, number)
    found = diff(before, after)
    lists = {
        "added": [row._asdict() for row in found.added],
        "removed": [row._asdict() for row in found.removed],
        **{
            name: [
                {**change._asdict(), "before": change.before._asdict(), "after": change.after._asdict()}
                for change in changes
            ]
            for name, changes in (
                ("moved", found.moved),
                ("relabeled", found.relabeled),
                ("attributes_changed", found.attributes_changed),
            )
        },
    }
    counts = {name: len(rows) for name, rows in lists.items()} | {"unchanged": found.unchanged}
    return {"number": number, "against": against, "counts": counts, **lists}


def _current(connection: Connection, task_id: str) -> Any:
    """The id of the current version, None when there is none. Refused (404) for a task that is not known."""
    row = connection.execute(select(Task.response_id).where(Task.task_id == task_id)).one_or_none()
    if row is None:
        raise missing(task_id)
    return row.response_id


def _version(connection: Connection, task_id: str, number: int, *columns: Any) -> RowMapping:
    statement = select(*columns).where(Response.task_id == task_id, Response.number == min(number, 2**31 - 1))
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise ProblemError(
            404, f"task {task_id} has no response {number}; GET …/responses lists those that it has"
        )
    return row


def _whole(connection: Connection, response_id: UUID, *columns: Any) -> Select[Any]:
    """The annotations of a version. Those of a file count from when all of them are written."""
    statement = select(*columns).where(Annotation.response_id == response_id)
    unread = select(Artifact.ordinal).where(Artifact.response_id == response_id, Artifact.state != "stored")
    if files := connection.scalars(unread).all():
        statement = statement.where(Annotation.file.not_in(files))
    return statement


def _summary(row: RowMapping, current: Any) -> Record:
    return {
        **row,
        "status": STATUSES.get(row["event"], "completed"),
        "is_current": row["id"] == current,
        "warnings": row["warnings"] or [],
    }


def _values(connection: Connection, task_id: str, number: int) -> list[Value]:
    row = _version(connection, task_id, number, Response.id, Response.annotation_count)
    if row["annotation_count"] > MOST_COMPARED:
        raise ProblemError(
            400,
            f"response {number} has {row['annotation_count']:,} annotations; at most {MOST_COMPARED:,} are compared",
        )
    statement = _whole(connection, row["id"], *VALUE)
    rows = connection.execute(statement.order_by(Annotation.file, Annotation.position))
    return [Value(*values) for values in rows]
