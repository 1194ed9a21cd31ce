"""The response versions of a task, their annotations, and the difference between two versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response
from marshmallow import Schema, fields
from marshmallow.validate import Range

from app.api.artifacts import Artifact as ArtifactSchema
from app.api.blueprint import Blueprint
from app.api.fields import Timestamp
from app.api.lists import ListQuery, OutputSchema, list_body, list_schema, paging, write_lists
from app.api.problems import ProblemError
from app.extensions import service
from app.responses import CONTENT_HEADERS
from pipeline.db.memory_budget import ReadTooLarge
from pipeline.db.sizes import MAX_VALUE_CHARACTERS
from pipeline.operations.diff import Change, Diff, TooDense, diff
from pipeline.operations.queries import Record
from pipeline.operations.queries import responses as queries
from pipeline.operations.queries.artifacts import MAX_OF_RESPONSE
from scale.annotations import Annotation

blueprint = Blueprint("responses", "Response versions and annotations of a task.")

TYPE = fields.String(
    metadata={
        "description": "Type: box, polygon, line, point, cuboid, ellipse, mask, cuboid3d, segment3d, span, event, or Scale's own word."
    }
)


class AnnotationSchema(OutputSchema):
    """An annotation, with Scale's own keys in `geometry`."""

    position = fields.Integer(metadata={"description": "Position in the file, from 0."})
    uuid = fields.String(allow_none=True)
    type = TYPE
    label = fields.String(allow_none=True)
    frame = fields.Integer(
        allow_none=True,
        metadata={"description": "Position of the frame in the file, or the `key` that the file gives."},
    )
    attributes = fields.Raw(allow_none=True)
    geometry = fields.Raw(
        allow_none=True,
        metadata={
            "description": "Geometry under Scale's own keys, in pixels, origin top left."
            f" Null above {MAX_VALUE_CHARACTERS:,} characters."
        },
    )
    file = fields.Integer(
        metadata={
            "description": "`file` of the artifact that holds the annotation; 0 for the response itself."
        }
    )
    warning = fields.String(allow_none=True, metadata={"description": "Why the annotation was kept raw."})


class AnnotationWithSource(AnnotationSchema):
    """An annotation with the time of its frame."""

    time = fields.Float(
        allow_none=True,
        metadata={"description": "Time of the frame, in seconds from the start of the video."},
    )
    image = fields.String(allow_none=True, metadata={"description": "Attachment that the frame belongs to."})


class AnnotationQuery(ListQuery):
    """Filters of the list of annotations."""

    response = fields.Integer(
        validate=Range(1, queries.MAX_NUMBER),
        metadata={"description": "Number of the version; the current one by default."},
    )
    type = fields.String()
    label = fields.String()
    uuid = fields.String()
    frame = fields.Integer(validate=Range(-(2**63), 2**63 - 1))


class ResponseSummary(OutputSchema):
    """A response version as lists show it."""

    number = fields.Integer()
    event = fields.String(
        metadata={"description": "Event of the version's first delivery: completed, accepted, fixed …"}
    )
    status = fields.String(metadata={"description": "Status of the task in that delivery."})
    received_at = Timestamp()
    is_current = fields.Boolean()
    delivery_id = fields.UUID()
    annotation_count = fields.Integer()
    digest = fields.String(
        metadata={
            "description": "SHA-256 of the canonical response. It identifies the version even if an older one arrives later."
        }
    )
    warnings = fields.List(fields.Raw(), metadata={"description": "Human-readable parse warnings."})
    response = fields.Raw(
        allow_none=True,
        metadata={
            "description": f"The response that Scale sent. Null above {MAX_VALUE_CHARACTERS:,} characters: download …/content instead."
        },
    )
    response_characters = fields.Integer(metadata={"description": "Size of the response as JSON text."})


class ResponseDetail(ResponseSummary):
    """A response version with its answer and files."""

    error = fields.Dict(allow_none=True)
    answer = fields.Raw(allow_none=True)
    artifacts = fields.List(
        fields.Nested(ArtifactSchema),
        metadata={
            "description": f"The first {MAX_OF_RESPONSE:,} files; /artifacts?task_id= lists those of all versions."
        },
    )


class DiffQuery(Schema):
    """Parameters of a comparison of two versions."""

    against = fields.Integer(
        validate=Range(1, queries.MAX_NUMBER),
        metadata={"description": "Number of the version to compare with; the previous one by default."},
    )


class ChangeSchema(OutputSchema):
    """An annotation that both versions have, in different form."""

    before = fields.Nested(AnnotationSchema)
    after = fields.Nested(AnnotationSchema)
    matched_by = fields.String(
        metadata={"description": "How both were matched: uuid, geometry, overlap or distance."}
    )
    score = fields.Float(
        allow_none=True,
        metadata={"description": "IoU (0 to 1) or distance in pixels, if they were matched by it."},
    )


class DiffSchema(OutputSchema):
    """What a version changed against another one."""

    number = fields.Integer()
    against = fields.Integer()
    counts = fields.Dict(keys=fields.String(), values=fields.Integer())
    added = fields.List(fields.Nested(AnnotationSchema))
    removed = fields.List(fields.Nested(AnnotationSchema))
    moved = fields.List(fields.Nested(ChangeSchema))
    relabeled = fields.List(fields.Nested(ChangeSchema))
    attributes_changed = fields.List(fields.Nested(ChangeSchema))


@blueprint.get("/tasks/<string:task_id>/responses")
@blueprint.arguments(ListQuery, location="query")
@blueprint.response(200, list_schema(ResponseSummary))
def list_responses(query: Mapping[str, Any], task_id: str) -> Record:
    """List every distinct response of a task, newest first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_responses(connection, task_id, **paging(query)))


@blueprint.get("/tasks/<string:task_id>/responses/<int:number>")
@blueprint.response(200, ResponseDetail)
def get_response(task_id: str, number: int) -> Record:
    """Get one response version with its answer, error and files"""
    with service().reader.begin() as connection:
        return queries.get_response(connection, task_id, number)


@blueprint.get("/tasks/<string:task_id>/responses/<int:number>/content")
@blueprint.response(
    200,
    {"type": "object"},
    content_type="application/json",
    description="The response as JSON, whatever its size.",
)
def get_response_content(task_id: str, number: int) -> Response:
    """Download one response"""
    with service().reader.begin() as connection:
        version_id = queries.response_id(connection, task_id, number)
    content = queries.stream_response(service().reader, version_id)
    return Response(content, headers=CONTENT_HEADERS, mimetype="application/json")


@blueprint.get("/tasks/<string:task_id>/annotations")
@blueprint.arguments(AnnotationQuery, location="query")
@blueprint.response(200, list_schema(AnnotationWithSource))
def list_annotations(query: Mapping[str, Any], task_id: str) -> Record:
    """List the annotations of one version by position, those of the response itself before those of its files"""
    with service().reader.begin() as connection:
        return list_body(queries.list_annotations(connection, task_id, query, **paging(query)))


@blueprint.get("/tasks/<string:task_id>/responses/<int:number>/diff")
@blueprint.arguments(DiffQuery, location="query")
@blueprint.response(200, DiffSchema)
def diff_responses(query: Mapping[str, Any], task_id: str, number: int) -> Response:
    """Compare version `number` with version `against`"""
    against = query.get("against", number - 1)
    if against < 1:
        raise ProblemError(400, "The first version has no previous one; pass `against`.")
    try:
        with service().reader.begin() as connection:
            before, after = queries.compared_annotations(connection, task_id, against, number)
        return _written({"number": number, "against": against}, diff(before, after))
    except (queries.TooManyAnnotations, TooDense) as error:
        why = str(error)
    except ReadTooLarge:
        why = "the versions are too large to be compared"
    urls = [f"/api/v1/tasks/{task_id}/responses/{one}/content" for one in (against, number)]
    raise ProblemError(400, f"{why}; download both, {' and '.join(urls)}, or compare exports.")


def _written(head: Record, found: Diff) -> Response:
    """Return the body of a comparison: what was compared, counts and lists. Raises ReadTooLarge."""
    lists: dict[str, Sequence[Annotation | Change]] = {
        name: getattr(found, name)
        for name in ("added", "removed", "moved", "relabeled", "attributes_changed")
    }
    counts = {name: len(rows) for name, rows in lists.items()} | {"unchanged": found.unchanged}
    return write_lists(
        {**head, "counts": counts}, **{name: map(_shown, rows) for name, rows in lists.items()}
    )


def _shown(row: Annotation | Change) -> Record:
    if isinstance(row, Annotation):
        return row._asdict()
    return {**row._asdict(), "before": row.before._asdict(), "after": row.after._asdict()}
