"""Artifacts: the files that responses point to, and their content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response
from marshmallow import fields
from marshmallow.validate import OneOf

from app.api.blueprint import Blueprint, actor
from app.api.fields import Timestamp
from app.api.lists import ListQuery, OutputSchema, list_body, list_schema, paging
from app.api.problems import ProblemError
from app.extensions import dispatcher, service
from app.responses import send_content
from pipeline.artifacts.retry import ArtifactPurged, retry
from pipeline.operations.queries import Gone, Record
from pipeline.operations.queries import artifacts as queries

blueprint = Blueprint("artifacts", "Files that responses point to.")


class Artifact(OutputSchema):
    """A file that a response points to."""

    id = fields.UUID()
    task_id = fields.String()
    role = fields.String(
        metadata={"description": "Key of the URL in the response: annotations, events, indexedImage …"}
    )
    url = fields.String(metadata={"description": "URL at Scale; signed URLs expire."})
    state = fields.String(validate=OneOf(queries.STATES))
    size_bytes = fields.Integer(allow_none=True)
    sha256 = fields.String(allow_none=True)
    reason = fields.String(
        allow_none=True, metadata={"description": "Why the file failed, or what was malformed in it."}
    )
    media_type = fields.String(allow_none=True)
    attempts = fields.Integer()
    annotation_count = fields.Integer(
        allow_none=True,
        metadata={"description": "Number of annotations in the file; null if it holds none or was not read."},
    )
    details = fields.Dict(
        allow_none=True,
        metadata={"description": "Other contents of the file: size of an image, global_attributes by frame."},
    )
    purged_at = Timestamp(
        allow_none=True,
        metadata={"description": "Time at which the content was purged: its download answers 410."},
    )
    file = fields.Integer(metadata={"description": "Value of `file` in the annotations of this artifact."})


class ArtifactQuery(ListQuery):
    """Filters of the list of artifacts."""

    state = fields.String(validate=OneOf(queries.STATES))
    task_id = fields.String()


@blueprint.get("/artifacts")
@blueprint.arguments(ArtifactQuery, location="query")
@blueprint.response(200, list_schema(Artifact))
def list_artifacts(query: Mapping[str, Any]) -> Record:
    """List the files of all responses, newest first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_artifacts(connection, query, **paging(query)))


@blueprint.get("/artifacts/<uuid:artifact_id>")
@blueprint.response(200, Artifact)
def get_artifact(artifact_id: UUID) -> Mapping[str, Any]:
    """Get one artifact"""
    with service().reader.begin() as connection:
        return queries.get_artifact(connection, artifact_id)


@blueprint.get("/artifacts/<uuid:artifact_id>/content")
@blueprint.response(
    200,
    {"type": "string", "format": "binary"},
    content_type="application/octet-stream",
    description="The content; range requests are supported.",
)
def get_artifact_content(artifact_id: UUID) -> Response:
    """Download a stored file"""
    with service().reader.begin() as connection:
        row = queries.get_artifact(connection, artifact_id)
    if row["purged_at"] is not None:
        raise Gone(f"the content of artifact {artifact_id} was purged on {row['purged_at']:%Y-%m-%d}")
    if row["state"] != "stored" or row["sha256"] is None:
        raise ProblemError(
            404, f"The file has no content: it is {row['state']}, {row['reason'] or 'wait for the worker'}."
        )
    try:
        return send_content(
            service().store,
            row["sha256"],
            media_type=row["media_type"],
            download_name=str(artifact_id),
        )
    except FileNotFoundError:
        raise ProblemError(404, "The file was deleted from the artifact store.") from None


@blueprint.post("/artifacts/<uuid:artifact_id>/retry")
@blueprint.response(200, Artifact)
def retry_artifact(artifact_id: UUID) -> Mapping[str, Any]:
    """Fetch a failed file again, or read a stored one again"""
    with service().engine.begin() as connection:
        queries.get_artifact(connection, artifact_id)
        try:
            job_ids = retry(connection, artifact_id, actor())
        except ArtifactPurged as error:
            raise ProblemError(409, f"{error}.") from None
        row = queries.get_artifact(connection, artifact_id)
    dispatcher().dispatch(job_ids)
    return row
