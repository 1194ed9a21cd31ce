"""The files behind responses, and their content from the artifact store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response, request
from marshmallow import fields
from marshmallow.validate import OneOf
from sqlalchemy import select
from werkzeug.wsgi import wrap_file

from app.api.blueprint import Blueprint, actor, dispatcher, service
from app.api.lists import ListQuery, OutputSchema, Record, list_schema, paginate
from app.api.problems import ProblemError
from models import Artifact as Row
from pipeline.access.audit import log_action
from pipeline.artifacts import jobs

blueprint = Blueprint("artifacts", "Files that responses point to")

STATES = ("pending", "stored", "failed")
PLAIN_TYPES = (
    "application/json",
    "image/jpeg",
    "image/png",
    "image/webp",
    "video/mp4",
    "audio/mpeg",
    "audio/wav",
)
"""What is said as it came. Any other content is only bytes: it comes from elsewhere and could be a page with a script."""
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, no-cache",
}

SHOWN = (
    Row.id,
    Row.task_id,
    Row.role,
    Row.url,
    Row.state,
    Row.size_bytes,
    Row.sha256,
    Row.reason,
    Row.media_type,
    Row.attempts,
    Row.annotation_count,
    Row.details,
    Row.ordinal.label("file"),
)


class Artifact(OutputSchema):
    id = fields.UUID()
    task_id = fields.String()
    role = fields.String(metadata={"description": "annotations, events, indexedImage, labeled:<label> …"})
    url = fields.String(metadata={"description": "Where Scale keeps it; addresses expire"})
    state = fields.String(validate=OneOf(STATES))
    size_bytes = fields.Integer(allow_none=True)
    sha256 = fields.String(allow_none=True)
    reason = fields.String(allow_none=True, metadata={"description": "Why it failed, or what was odd in it"})
    media_type = fields.String(allow_none=True)
    attempts = fields.Integer()
    annotation_count = fields.Integer(
        allow_none=True, metadata={"description": "Annotations read from it; null: not read, or none to read"}
    )
    details = fields.Dict(
        allow_none=True,
        metadata={
            "description": "What was read beside annotations: an image's size, global_attributes by frame"
        },
    )
    file = fields.Integer(metadata={"description": "`file` of the annotations that were read from it"})


class ArtifactQuery(ListQuery):
    state = fields.String(validate=OneOf(STATES))
    task_id = fields.String()


@blueprint.get("/artifacts")
@blueprint.arguments(ArtifactQuery, location="query")
@blueprint.response(200, list_schema(Artifact))
def list_artifacts(query: Mapping[str, Any]) -> Record:
    """Files of all responses, also those that are not current"""
    statement = select(*SHOWN)
    for name in ("state", "task_id"):
        if name in query:
            statement = statement.where(getattr(Row, name) == query[name])
    with service().reader.begin() as connection:
        return paginate(connection, statement, [Row.id], query)


@blueprint.get("/artifacts/<uuid:artifact_id>")
@blueprint.response(200, Artifact)
def show_artifact(artifact_id: UUID) -> Any:
    """One file"""
    return _row(artifact_id)


@blueprint.get("/artifacts/<uuid:artifact_id>/content")
@blueprint.response(
    200,
    {"type": "string", "format": "binary"},
    content_type="application/octet-stream",
    description="The bytes; ranges are answered",
)
def artifact_content(artifact_id: UUID) -> Response:
    """The bytes of a stored file"""
    row = _row(artifact_id)
    if row["state"] != "stored" or row["sha256"] is None:
        raise ProblemError(
            404,
            f"the content is not here: the file is {row['state']}, {row['reason'] or 'wait for the worker'}",
        )
    try:
        size = service().store.size(row["sha256"])
        file = service().store.open(row["sha256"])
    except FileNotFoundError:
        raise ProblemError(404, "the content has been deleted from the artifact store") from None
    media_type = row["media_type"] if row["media_type"] in PLAIN_TYPES else "application/octet-stream"
    response = Response(
        wrap_file(request.environ, file), headers=SAFE_HEADERS, mimetype=media_type, direct_passthrough=True
    )
    response.content_length = size
    response.headers.set("Content-Disposition", "attachment", filename=str(artifact_id))
    response.set_etag(row["sha256"])
    response.make_conditional(request, accept_ranges=True, complete_length=size)
    return response


@blueprint.post("/artifacts/<uuid:artifact_id>/retry")
@blueprint.response(200, Artifact)
def retry_artifact(artifact_id: UUID) -> Any:
    """Fetch a failed file again; one that is stored is read again"""
    with service().engine.begin() as connection:
        try:
            job_ids = jobs.retry(connection, artifact_id)
        except LookupError:
            raise _missing(artifact_id) from None
        log_action(connection, actor(), "artifact.retry", str(artifact_id))
    dispatcher().dispatch(job_ids)
    return _row(artifact_id)


def _row(artifact_id: UUID) -> Any:
    with service().reader.begin() as connection:
        row = connection.execute(select(*SHOWN).where(Row.id == artifact_id)).mappings().one_or_none()
    if row is None:
        raise _missing(artifact_id)
    return row


def _missing(artifact_id: UUID) -> ProblemError:
    return ProblemError(
        404, f"no artifact {artifact_id} is known; GET /api/v1/artifacts lists those that are"
    )
