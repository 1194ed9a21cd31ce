"""Exports: request one, watch its progress, download it, and read what was left out."""

from __future__ import annotations

from uuid import UUID

from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint, page
from app.extensions import dispatcher, service
from app.responses import send_content
from exports.format import MissingPackage
from exports.formats import FORMATS, find_format
from pipeline.access.audit import log_action
from pipeline.access.tokens import OPERATE
from pipeline.datasets import export_requests as requests
from pipeline.datasets import versions
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
    format_ = find_format(request.form.get("export_format", ""))
    if format_ is None:
        abort(400, "Choose one of the formats.")
    try:
        format_.check_packages()
        with service().reader.begin() as connection:
            dataset = versions.find(connection, request.form.get("dataset", "").strip()).full_name
    except (Unusable, UnknownDataset, MissingPackage) as problem:
        abort(400, str(problem.args[0]))
    images = "copy" if request.form.get("images") == "copy" else "link"
    with service().engine.begin() as connection:
        export_id, job_ids = requests.request_export(
            connection, format_.name, dataset, None, {"images": images}
        )
        log_action(connection, session.actor(), "export.create", str(export_id))
    dispatcher().dispatch(job_ids)
    flash(f"Requested {format_.name} of {dataset}. Reload to see its progress.")
    return redirect(url_for("console.exports"))


@blueprint.get("/exports/<uuid:export_id>/content")
def export_content(export_id: UUID) -> Response:
    """Download the zip of a completed export."""
    with service().reader.begin() as connection:
        row = requests.get_export(connection, export_id)
    if row["state"] != requests.COMPLETED or row["sha256"] is None:
        abort(404, f"The export has no content: it is {row['state']}.")
    name = f"{(row['dataset'] or 'export').replace('@', '-')}-{row['format']}.zip"
    return send_content(service().store, row["sha256"], media_type="application/zip", download_name=name)
