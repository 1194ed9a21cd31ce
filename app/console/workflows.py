"""Workflows: the files with their graphs and errors, and pausing them."""

from __future__ import annotations

from pathlib import Path

from flask import flash, redirect, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint, page
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.follow_ups import decisions, pauses
from pipeline.operations.queries import NotFound
from pipeline.operations.queries import follow_ups as queries
from pipeline.operations.queries.creation import creation_status
from workflows.definition.model import InvalidWorkflow, Workflow
from workflows.docs.graph import svg

MAX_FILE_BYTES = 1024 * 1024


@blueprint.get("/workflows")
def workflows() -> Response:
    """List every workflow file, also those that are not loaded."""
    files = service().workflows
    with service().reader.begin() as connection:
        paused = pauses.paused(connection)
        creation = creation_status(connection)
        counts = queries.counts_by_workflow(connection)
    return page(
        "workflows.html",
        "Workflows",
        loaded=files.loaded,
        invalid=files.invalid,
        paused=paused,
        creation=creation,
        counts=counts,
    )


@blueprint.get("/workflows/<name>")
def workflow(name: str) -> Response:
    """Show one workflow: its graph, its file with errors, and what it has created by step and state."""
    found = _find(name)
    with service().reader.begin() as connection:
        is_paused = name in pauses.paused(connection)
        counts = queries.counts_by_step(connection, name)
    is_valid = isinstance(found, Workflow)
    return page(
        "workflow.html",
        f"Workflow {name}",
        workflow=found,
        is_valid=is_valid,
        is_paused=is_paused,
        counts=counts,
        drawing=Markup(svg(found, styled=False))
        if isinstance(found, Workflow)
        else None,  # escaped by the graph itself
        lines=_text(found).splitlines(),
    )


@blueprint.post("/workflows/<name>/<any(pause, resume):verb>")
def switch_workflow(name: str, verb: str) -> Response:
    """Pause a workflow, or resume it."""
    session.require_role(OPERATE)
    _find(name)
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


def _find(name: str) -> Workflow | InvalidWorkflow:
    files = service().workflows
    every: list[Workflow | InvalidWorkflow] = [*files.loaded, *files.invalid]
    for found in every:
        if name == (found.name or Path(found.path).stem):
            return found
    raise NotFound(f"no workflow is called {name}")


def _text(found: Workflow | InvalidWorkflow) -> str:
    try:
        with Path(found.path).open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return f"The file cannot be read: {error.strerror}"
