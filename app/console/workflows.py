"""Workflows: the files and their errors, and pausing them."""

from __future__ import annotations

from pathlib import Path

from flask import flash, redirect, url_for
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.follow_ups import decisions, pauses
from pipeline.operations.queries import NotFound
from pipeline.operations.queries import follow_ups as queries
from pipeline.operations.queries.creation import creation_status
from workflows.definition.model import InvalidWorkflow, Workflow


@blueprint.get("/workflows")
def workflows() -> Response:
    """List every workflow file, also those that are not loaded."""
    files = service().workflows
    with service().reader.begin() as connection:
        paused = pauses.paused(connection)
        creation = creation_status(connection)
        counts = service().totals.get("workflows", lambda: queries.counts_by_workflow(connection))
    every: list[Workflow | InvalidWorkflow] = [*files.invalid, *files.loaded]
    rows = [
        {
            "name": one.name or Path(one.path).stem,
            "state": "invalid"
            if isinstance(one, InvalidWorkflow)
            else "paused"
            if one.name in paused
            else "active",
            "path": one.path,
            "errors": [problem.message for problem in one.errors] if isinstance(one, InvalidWorkflow) else [],
        }
        for one in every
    ]
    if (answer := download(("name", "state", "path", "errors"), rows)) is not None:
        return answer
    return page(
        "workflows.html",
        "Workflows",
        loaded=files.loaded,
        invalid=files.invalid,
        paused=paused,
        creation=creation,
        counts=counts,
    )


@blueprint.post("/workflows/<name>/<any(pause, resume):verb>")
def switch_workflow(name: str, verb: str) -> Response:
    """Pause a workflow, or resume it."""
    session.require_role(OPERATE)
    find_workflow(name)
    with service().engine.begin() as connection:
        if verb == "pause":
            decisions.pause(connection, name, session.actor())
            job_ids = []
        else:
            job_ids = decisions.resume(connection, name, session.actor())
    dispatcher().dispatch(job_ids)
    flash(f"{'Paused' if verb == 'pause' else 'Resumed'} the workflow {name}.")
    return redirect(url_for("console.workflow", name=name))


@blueprint.post("/workflows/creation/<any(pause, resume):verb>")
def switch_creation(verb: str) -> Response:
    """Pause the creation of tasks, or resume it."""
    session.require_role(OPERATE)
    decide = decisions.pause_creation if verb == "pause" else decisions.resume_creation
    with service().engine.begin() as connection:
        decide(connection, session.actor())
    flash("Creation of tasks is paused." if verb == "pause" else "Creation of tasks continues.")
    return redirect(url_for("console.workflows"))


def find_workflow(name: str) -> Workflow | InvalidWorkflow:
    """Return a workflow by its name, or by that of its file if it has none. Raises NotFound."""
    files = service().workflows
    every: list[Workflow | InvalidWorkflow] = [*files.loaded, *files.invalid]
    for found in every:
        if name == (found.name or Path(found.path).stem):
            return found
    raise NotFound(f"no workflow is called {name}")


def loaded_workflow(name: str) -> Workflow:
    """Return a workflow whose file is valid. Raises NotFound."""
    found = find_workflow(name)
    if not isinstance(found, Workflow):
        raise NotFound(f"the file of the workflow {name} is not loaded")
    return found
