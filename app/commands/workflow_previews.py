"""`weighbridge workflows plan` and `explain`: what workflows would create, without writing anything."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext
from rich.syntax import Syntax

from app.commands.group import Command
from app.commands.output import as_json, console, print_json, print_rows, printable
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.commands.workflows import FILE, find
from app.extensions import service
from pipeline.follow_ups.preview import Preview, explanations
from pipeline.follow_ups.prices import Cost, project_of
from pipeline.operations.queries import Record
from pipeline.operations.queries.views import FilesPending, get_view, views_since
from scale.envelope import InvalidCallback, parse_callback
from workflows.planning.view import View, view

MARKS = {True: "yes", False: "no", None: "unknown"}


@click.command(cls=Command)
@click.option("--task", "task_id", metavar="TASK_ID", help="Plan a known task.")
@click.option("--payload", type=FILE, help="Plan the callback body in this file.")
@click.option("--since", type=TIMESTAMP, help=f"Plan every task that changed at or after TIME: {EXAMPLES}.")
@click.option("--workflow", "name", metavar="NAME", help="Evaluate only this workflow or file.")
@as_json
@with_appcontext
def plan(
    task_id: str | None, payload: str | None, since: datetime | None, name: str | None, as_json: bool
) -> None:
    """Preview what would be created, with requests and limits. Nothing is written."""
    if sum(value is not None for value in (task_id, payload, since)) != 1:
        raise click.UsageError("Pass one of --task, --payload and --since.")
    selected = [find(name)] if name else list(service().workflows.loaded)
    preview = Preview(service(), selected)
    counts: Counter[tuple[str, str, str, str]] = Counter()
    costs: defaultdict[str, Cost] = defaultdict(lambda: Cost(service().prices))
    planned: list[Record] = []
    for seen in _views(task_id, payload, since):
        for one in preview.of(seen):
            counts[one["workflow"], one["step"], one["type"], one["state"]] += 1
            costs[one["state"]].add(one["type"], project_of(one["request"]))
            if since is None or as_json:
                planned.append(one)
    if as_json:
        print_json(planned)
        return
    for one in planned:
        _print_planned(one)
    rows = [
        {"workflow": workflow, "step": step, "type": type_name, "would be": state, "tasks": number}
        for (workflow, step, type_name, state), number in sorted(counts.items())
    ]
    columns = ("workflow", "step", "type", "would be", "tasks")
    print_rows(rows, columns, False, "Nothing would be created.")
    for state in ("created", "held"):
        if state in costs:  # that no price is set is a note, not a result
            is_note = not service().prices.prices
            click.echo(f"Cost of what would be {state}: {costs[state].summary}.", err=is_note)


def _views(task_id: str | None, payload: str | None, since: datetime | None) -> Iterator[View]:
    if task_id is not None:
        yield task_view(task_id)
    elif payload is not None:
        yield payload_view(Path(payload))
    elif since is not None:
        yield from filter(None, views_since(service().reader, since))


def _print_planned(planned: Record) -> None:
    reason = f" ({printable(planned['reason'])})" if planned["reason"] else ""
    click.echo(f"{planned['unique_id']}: {planned['state']}{reason}")
    click.echo(f"POST /v1/task/{planned['type']}  (cost: {planned['cost']['summary']})")
    text = json.dumps(planned["request"], indent=2, ensure_ascii=False)
    if sys.stdout.isatty():
        console().print(Syntax(text, "json", background_color="default"))
    else:
        click.echo(text)


def task_view(task_id: str) -> View:
    """Return a stored task as planning sees it. Raises NotFound and ClickException."""
    try:
        with service().reader.begin() as connection:
            return get_view(connection, task_id)
    except FilesPending as error:
        raise click.ClickException(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None


def payload_view(file: Path) -> View:
    """Return the task in the body of a callback as planning sees it. Raises ClickException."""
    try:
        callback = parse_callback(file.read_bytes(), "live")
    except InvalidCallback as error:
        raise click.ClickException(f"{file} would be quarantined: {error}") from None
    if callback.task is None:
        raise click.ClickException(f"{file} has no task object, so its type is unknown.")
    return view(callback.task.raw, callback.response, environment=callback.environment)


@click.command(cls=Command)
@click.argument("task_id")
@click.option("--workflow", "name", metavar="NAME", help="Evaluate only this workflow.")
@as_json
@with_appcontext
def explain(task_id: str, name: str | None, as_json: bool) -> None:
    """Explain which steps apply to a task, and why."""
    seen = task_view(task_id)
    with service().reader.begin() as connection:
        selected = [find(name)] if name else service().workflows.loaded
        steps = explanations(connection, service(), seen, selected)
    if as_json:
        print_json(steps)
        return
    for step in steps:
        _print_step(step)
    if not steps:
        click.echo("No workflow is loaded.")


def _print_values(values: Iterable[dict[str, Any]]) -> None:
    for seen in values:
        value = json.dumps(seen["value"], ensure_ascii=False)
        click.echo(f"{'':<16}{printable(seen['expression'])} is {printable(value)}")


def _print_step(step: dict[str, Any]) -> None:
    click.echo(f"{step['workflow']}.{step['step']}" + (" (paused)" if step["paused"] else ""))
    for condition in step["conditions"]:
        click.echo(f"  {MARKS[condition['held']]:<14}{condition['name']}: {printable(condition['why'])}")
        _print_values(condition["values"])
    if step["elements"] != step["left"] or step["elements"] > 1:
        click.echo(f"  `where` selects {step['left']} of {step['elements']} elements")
    for element in step["where"]:
        click.echo(f"  {MARKS[element['held']]:<14}where, {printable(element['element'])}")
        _print_values(element["values"])
    if step["omitted"]:
        click.echo(
            f"  {step['omitted']} annotations or items are left out: other frames of an object, or equal ones"
        )
    for follow_up in step["follow_ups"]:
        state = follow_up["state"] or "not recorded"
        reason = f": {printable(follow_up['reason'])}" if follow_up["reason"] else ""
        cost = f" (cost: {follow_up['cost']['summary']})"
        click.echo(f"  → {follow_up['unique_id']} {state}{reason}{cost}")
    if not step["follow_ups"]:
        click.echo("  → no follow-up")
