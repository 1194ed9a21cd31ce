"""`weighbridge tasks submit FILE --workflow NAME`: start a workflow with the rows of a file."""

from __future__ import annotations

import itertools
from pathlib import Path

import click

from app.api.submit import started_body
from app.commands.group import actor, dispatch_now
from app.commands.output import print_json, printable
from app.commands.workflows import find
from app.extensions import service
from pipeline.follow_ups import inputs as starting
from pipeline.follow_ups.submit import InvalidInput, read_rows

MAX_PRINTED = 20


def start_workflow(
    file: Path, name: str, environment: str, limit: int | None, *, check: bool, yes: bool, as_json: bool
) -> None:
    """Start a workflow with the rows of a file, after a preview and a question. Raises ClickException."""
    workflow = find(name)
    if service().workflows.workflow(workflow.name) != workflow:
        raise click.ClickException(
            f"{name} is not in WORKFLOWS_DIR; copy it there first, so that the worker has it."
        )
    try:
        rows = itertools.islice(read_rows(file), limit)
        inputs = starting.read_inputs(service(), workflow, rows, environment)
    except InvalidInput as error:
        raise click.ClickException(str(error)) from None
    preview = starting.preview_inputs(service(), workflow, inputs, environment)
    if faults := preview.faults:
        lines = [printable(f"line {line}: {fault}") for line, fault in sorted(faults.items())[:MAX_PRINTED]]
        more = [f"… and {len(faults) - MAX_PRINTED} more"] if len(faults) > MAX_PRINTED else []
        raise click.ClickException(
            f"{len(faults)} invalid rows; nothing was started:\n" + "\n".join([*lines, *more])
        )
    states = ", ".join(f"{number} {state}" for state, number in sorted(preview.states.items())) or "none"
    summary = f"{workflow.name} with {len(inputs)} inputs ({environment}). Tasks: {states}. Cost: {preview.cost.summary}"
    if check:
        if as_json:
            print_json(started_body([], preview))
            return
        for one in preview.follow_ups:
            click.echo(f"{one['unique_id']}  {one['type']}  {printable(one['request'])}")
        click.echo(f"Would start {summary}.")
        return
    if not yes:
        click.confirm(f"Start {summary}?", abort=True)
    outcomes, jobs = starting.start(service(), workflow, inputs, environment, actor())
    dispatch_now(jobs)
    if as_json:
        print_json(started_body(outcomes, preview))
        return
    for started, _ in outcomes[:MAX_PRINTED]:
        click.echo(f"{started.task_id}  line {started.line}")
    if len(outcomes) > MAX_PRINTED:
        click.echo(f"… and {len(outcomes) - MAX_PRINTED} more; --json prints all")
    click.echo(f"Started {summary}. `weighbridge tasks tree ID` shows what follows from an input.")
