"""Exports: request one, watch its progress, download it, and read what was left out."""

from __future__ import annotations

from uuid import UUID

from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.api.exports import send_zip
from app.console import session
from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import dispatcher, service
from exports.format import MissingPackage
from exports.formats import FORMATS
from exports.jobs import request_export
from pipeline.access.tokens import OPERATE
from pipeline.datasets import export_requests as requests
from pipeline.datasets.filters import Unusable
from pipeline.datasets.versions import UnknownDataset

PAGE_EXPORTS = 50


@blueprint.get("/exports")
def exports() -> Response:
    """List exports, newest first."""
    with service().reader.begin() as connection:
        found = requests.list_exports(
            connection, limit=PAGE_EXPORTS, cursor=request.args.get("cursor") or None
        )
    fields = (
        "id",
        "created_at",
        "format",
        "dataset",
        "filters",
        "state",
        "tasks_done",
        "tasks_total",
        "reason",
    )
    if (answer := download(fields, found.rows)) is not None:
        return answer
    return page(
        "exports.html",
        "Exports",
        rows=found.rows,
        next_cursor=found.next_cursor,
        formats=FORMATS,
        chosen=request.args.get("dataset", ""),
    )


@blueprint.post("/exports")
def create_export() -> Response:
    """Request an export of a dataset version."""
    session.require_role(OPERATE)
    format_name = request.form.get("export_format", "")
    dataset = request.form.get("dataset", "").strip()
    options = {"images": "copy" if request.form.get("images") == "copy" else "link"}
    try:
        _, job_ids = request_export(service(), format_name, dataset, None, options, session.actor())
    except (Unusable, UnknownDataset, MissingPackage) as problem:
        abort(400, str(problem.args[0]))
    dispatcher().dispatch(job_ids)
    flash(f"Requested {format_name} of {dataset}. Reload to see its progress.")
    return redirect(url_for("console.exports"))


@blueprint.get("/exports/<uuid:export_id>/content")
def export_content(export_id: UUID) -> Response:
    """Download the zip of a completed export."""
    return send_zip(export_id)
