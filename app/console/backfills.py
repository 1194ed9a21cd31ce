"""Backfills of a workflow: what one would create, starting it after that was shown, and its progress."""

from __future__ import annotations

import shlex
import time
from urllib.parse import urlencode
from uuid import UUID

from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.api.backfills import MAX_EVALUATED, BackfillRequest, filters_of
from app.console import session
from app.console.frame import blueprint, page
from app.console.lists import Filter, load_query, read_filters
from app.console.workflows import loaded_workflow
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.follow_ups import backfill
from pipeline.operations.queries import Record
from pipeline.operations.queries import backfills as queries
from scale.environments import ENVIRONMENTS
from workflows.definition.model import Workflow

MAX_PREVIEW_SECONDS = 5.0
"""How long a preview may occupy a web process, which also receives callbacks."""
FILTERS = (
    Filter("since", "Newest event since"),
    Filter("until", "Newest event before"),
    Filter("project", "Project"),
    Filter("type", "Type"),
    Filter("label", "Label"),
    Filter("batch", "Batch"),
    Filter("tag", "Tag"),
    Filter("environment", "Environment", ENVIRONMENTS),
    Filter("limit", "End after results"),
    Filter("per_minute", "Results a minute"),
)
OPTIONS = {"per_minute": "rate"}
"""Parameter → option of the command, where they differ."""


@blueprint.get("/workflows/<name>/backfill")
def confirm_backfill(name: str) -> Response:
    """Show what a backfill with the filters of the address would create. Nothing is written."""
    session.require_role(OPERATE)
    workflow, chosen = loaded_workflow(name), read_filters(FILTERS)
    found = _preview(workflow, load_query(BackfillRequest(), chosen))
    words = [
        word
        for key, value in chosen.items()
        for word in (f"--{OPTIONS.get(key, key).replace('_', '-')}", value)
    ]
    return page(
        "backfill_new.html",
        f"Backfill {name}",
        name=name,
        filters=FILTERS,
        chosen=chosen,
        found=found,
        here=f"{request.path}?{urlencode(chosen)}",
        command=shlex.join(["weighbridge", "workflows", "backfill", name, *words]),
    )


@blueprint.post("/workflows/<name>/backfill")
def start_backfill(name: str) -> Response:
    """Start a backfill; ask again if more results match than were shown."""
    session.require_role(OPERATE)
    loaded_workflow(name)
    chosen, shown = read_filters(FILTERS), request.form.get("expected", type=int)
    given = load_query(BackfillRequest(), chosen)
    if shown is None:
        abort(400, "The form names no number of results. Open the page of the backfill again.")
    filters = filters_of(given)
    with service().engine.begin() as connection:
        matching = backfill.count(connection, filters)
        if matching > shown:
            flash(f"{matching:,} results match now, {shown:,} did before. Nothing was started yet.")
            return redirect(f"{request.path}?{urlencode(chosen)}")
        _, job_ids = backfill.start(
            connection,
            name,
            filters,
            session.actor(),
            limit=given.get("limit"),
            per_minute=given.get("per_minute"),
        )
    dispatcher().dispatch(job_ids)
    flash("Started the backfill. Its progress is below.")
    return redirect(url_for("console.workflow", name=name))


@blueprint.post("/backfills/<uuid:backfill_id>/<any(stop, resume):verb>")
def switch_backfill(backfill_id: UUID, verb: str) -> Response:
    """Stop a backfill after the result that it evaluates now, or go on with it."""
    session.require_role(OPERATE)
    with service().engine.begin() as connection:
        row = queries.get_backfill(connection, backfill_id)
        job_ids: list[UUID] = []
        if verb == "stop":
            backfill.stop(connection, backfill_id, session.actor())
        else:
            job_ids = backfill.resume(connection, backfill_id, session.actor())
    dispatcher().dispatch(job_ids)
    flash(f"{'Stopped' if verb == 'stop' else 'Resumed'} the backfill.")
    return redirect(url_for("console.workflow", name=row["workflow"]))


def _preview(workflow: Workflow, given: Record) -> backfill.BackfillPreview:
    """Return the preview of as many results as the time allows."""
    deadline = time.monotonic() + MAX_PREVIEW_SECONDS
    growing = backfill.preview(
        service(), workflow, filters_of(given), limit=given.get("limit"), max_evaluated=MAX_EVALUATED
    )
    found = next(growing)
    while time.monotonic() < deadline and next(growing, None) is not None:  # it is one object that grows
        pass
    return found
