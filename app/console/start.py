"""Start a workflow with one input: a form of its columns, what would follow, and the start after that was shown."""

from __future__ import annotations

from typing import Any

import orjson
from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.api.blueprint import check_text
from app.console import session
from app.console.frame import blueprint, page, show_json
from app.console.workflows import loaded_workflow
from app.extensions import dispatcher, service
from pipeline.access.tokens import OPERATE
from pipeline.follow_ups import inputs, pauses
from pipeline.follow_ups.submit import CREATED, Row
from pipeline.operations.queries import NotFound, Record
from scale.environments import ENVIRONMENTS
from workflows.definition.model import Workflow
from workflows.planning.inputs import missing_columns, required_columns, takes_inputs


@blueprint.get("/workflows/<name>/start")
def new_input(name: str) -> Response:
    """Show the form of an input."""
    session.require_role(OPERATE)
    return _page(_startable(name))


@blueprint.post("/workflows/<name>/start")
def start_workflow(name: str) -> Response:
    """Show what would follow from the input in the form; start the workflow with it if just that was shown before."""
    session.require_role(OPERATE)
    workflow, environment = _startable(name), request.form.get("environment")
    if environment not in ENVIRONMENTS:
        abort(400, f"The environment is one of {', '.join(ENVIRONMENTS)}.")
    row, problems = _read_form(workflow)
    if problems:
        return _page(workflow, problems)
    (given,) = inputs.read_inputs(service(), workflow, [Row(1, row)], environment)
    if given.fault is not None:  # its columns are there
        return _page(workflow, {"unique_id": given.fault})
    preview = inputs.preview_inputs(service(), workflow, [given], environment)
    if preview.faults:
        return _page(workflow, {"": preview.faults[given.line]})
    shown = session.digest(show_json([environment, row, preview.states, preview.follow_ups]))
    confirmed = request.form.get("shown")
    if confirmed != shown:
        if confirmed is not None:
            flash("What follows is no longer what was shown. Nothing was started yet.")
        return _page(workflow, preview=preview, shown=shown)
    outcomes, job_ids = inputs.start(service(), workflow, [given], environment, session.actor())
    dispatcher().dispatch(job_ids)
    is_new = outcomes[0][1] == CREATED
    flash(f"Started {name} with this input." if is_new else f"{name} was started with this input before.")
    return redirect(url_for("console.task", task_id=given.task_id))


def _startable(name: str) -> Workflow:
    workflow = loaded_workflow(name)
    if not takes_inputs(workflow):
        raise NotFound(f"no step of the workflow {name} has a `start`, so it takes no inputs")
    return workflow


def _page(workflow: Workflow, problems: dict[str, str] | None = None, **shown: Any) -> Response:
    with service().reader.begin() as connection:
        is_paused = workflow.name in pauses.paused(connection)
    return page(
        "start.html",
        f"Start {workflow.name}",
        status=422 if problems else 200,
        name=workflow.name,
        columns=required_columns(workflow),
        environments=ENVIRONMENTS,
        is_paused=is_paused,
        problems=problems or {},
        **shown,
    )


def _read_form(workflow: Workflow) -> tuple[Record, dict[str, str]]:
    """Return the input, and what is wrong with it by the name of the field."""
    row: Record = {}
    problems: dict[str, str] = {}
    fields = {name: text.strip() for name, text in request.form.items() if text.strip()}
    for name, text in fields.items():
        kind, _, column = name.partition(".")
        try:
            if name == "others":
                row = {**_json_object(text), **row}
            elif name == "unique_id":
                row[name] = text
            elif kind == "column":
                row[column] = _json(text) if f"json.{column}" in fields else text
        except ValueError as error:
            problems[name] = str(error)
    check_text(row)
    for column in missing_columns(workflow, row):
        problems.setdefault(f"column.{column}", "the workflow needs this column")
    return row, problems


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error}") from None


def _json_object(text: str) -> Record:
    found = _json(text)
    if not isinstance(found, dict):
        raise ValueError('this is not a JSON object, such as {"city": "Bern"}')
    return found
