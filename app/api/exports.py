"""Exports as jobs: requested, watched, downloaded as a zip, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response
from marshmallow import RAISE, Schema, fields
from marshmallow.validate import OneOf

from app.api.blueprint import Blueprint, actor
from app.api.fields import Timestamp
from app.api.lists import ListQuery, OutputSchema, list_body, list_schema, paging
from app.api.problems import ProblemError
from app.extensions import dispatcher, service
from app.responses import send_content
from exports.format import MissingPackage
from exports.formats import FORMATS
from exports.jobs import request_export
from pipeline.datasets import export_requests as requests
from pipeline.datasets.filters import Unusable
from pipeline.datasets.versions import UnknownDataset
from pipeline.operations.queries import Record

blueprint = Blueprint("exports", "Exports of results, as zip files.")

FORMAT_HELP = "; ".join(f"`{format_.name}`: {format_.summary}" for format_ in FORMATS)


class ExportOptions(Schema):
    """Options of an export; those of `weighbridge export` have the same names."""

    class Meta:
        unknown = RAISE

    images = fields.String(
        validate=OneOf(("link", "copy")),
        metadata={"description": "Write the images' addresses (link, the default) or the images (copy)."},
    )
    split = fields.Raw(
        metadata={
            "description": 'Shares that add up to 1: "train=0.8,val=0.2" or {"train": 0.8, "val": 0.2}.'
        }
    )
    split_by = fields.String(metadata={"description": "task, attachment, lineage (default) or metadata.KEY."})
    classes = fields.List(fields.String(), metadata={"description": "Labels in the order of their ids."})
    croissant = fields.Boolean(metadata={"description": "Add croissant.json."})


class NewExport(Schema):
    """The body of a request for an export: a dataset version, or filters."""

    format = fields.String(required=True, metadata={"description": FORMAT_HELP})
    dataset = fields.String(
        allow_none=True, metadata={"description": "NAME@N, or NAME for the newest version."}
    )
    filters = fields.Dict(
        allow_none=True,
        metadata={
            "description": "type, project, batch, tag, environment, status, review, label, workflow, step, since, until,"
            " metadata: a word or a list of words each. Default: live, completed."
        },
    )
    options = fields.Nested(ExportOptions, load_default={})


class Export(OutputSchema):
    """An export with its state and progress."""

    id = fields.UUID()
    format = fields.String()
    dataset = fields.String(allow_none=True)
    filters = fields.Dict(allow_none=True)
    options = fields.Dict()
    state = fields.String(validate=OneOf(requests.STATES))
    progress = fields.Float(metadata={"description": "Share of the work that is done, 0 to 1."})
    reason = fields.String(allow_none=True, metadata={"description": "Why the export failed."})
    report = fields.Dict(
        allow_none=True,
        metadata={"description": "export.json without its files: written, left_out, changed."},
    )
    sha256 = fields.String(allow_none=True, metadata={"description": "SHA-256 of the zip."})
    size_bytes = fields.Integer(allow_none=True)
    created_at = Timestamp()
    completed_at = Timestamp(allow_none=True)


@blueprint.post("/exports")
@blueprint.arguments(NewExport, error_status_code=422)
@blueprint.response(202, Export)
def create_export(given: Mapping[str, Any]) -> Record:
    """Request an export"""
    options = {name: value for name, value in given["options"].items() if value is not None}
    try:
        export_id, job_ids = request_export(
            service(), given["format"], given.get("dataset"), given.get("filters"), options, actor()
        )
    except (Unusable, MissingPackage) as problem:
        raise ProblemError(422, str(problem.args[0])) from None
    except UnknownDataset as problem:
        raise ProblemError(404, str(problem.args[0])) from None
    dispatcher().dispatch(job_ids)
    with service().engine.begin() as connection:  # a replica may lag behind
        return _with_progress(requests.get_export(connection, export_id))


@blueprint.get("/exports")
@blueprint.arguments(ListQuery, location="query")
@blueprint.response(200, list_schema(Export))
def list_exports(query: Mapping[str, Any]) -> Record:
    """List exports, newest first"""
    with service().reader.begin() as connection:
        found = list_body(requests.list_exports(connection, **paging(query)))
    return {**found, "data": [_with_progress(row) for row in found["data"]]}


@blueprint.get("/exports/<uuid:export_id>")
@blueprint.response(200, Export)
def get_export(export_id: UUID) -> Record:
    """Get one export with its state and progress"""
    with service().reader.begin() as connection:
        return _with_progress(requests.get_export(connection, export_id))


@blueprint.get("/exports/<uuid:export_id>/content")
@blueprint.response(
    200,
    {"type": "string", "format": "binary"},
    content_type="application/zip",
    description="The zip; range requests are supported.",
)
def get_export_content(export_id: UUID) -> Response:
    """Download the zip of a completed export"""
    return send_zip(export_id)


def send_zip(export_id: UUID) -> Response:
    """Stream the zip of a completed export. Raises NotFound, and ProblemError if the store lost it."""
    with service().reader.begin() as connection:
        sha256, name = requests.find_zip(connection, export_id)
    try:
        return send_content(service().store, sha256, media_type="application/zip", download_name=name)
    except FileNotFoundError:
        raise ProblemError(
            410, "The zip was deleted from the artifact store; request the export again."
        ) from None


@blueprint.delete("/exports/<uuid:export_id>")
@blueprint.response(204)
def delete_export(export_id: UUID) -> None:
    """Delete an export and its zip"""
    with service().engine.begin() as connection:
        unused = requests.delete_export(connection, export_id, actor())
    if unused is not None:
        service().store.delete(unused)


def _with_progress(row: Mapping[str, Any]) -> Record:
    total = row["tasks_total"]
    done = 1.0 if row["state"] == requests.COMPLETED else (row["tasks_done"] / total if total else 0.0)
    return {**row, "progress": round(done, 3)}
