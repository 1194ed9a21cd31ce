"""`flask workflows …`: checked, drawn, tried and explained before they cost money."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.syntax import Syntax
from sqlalchemy import select

from app.commands.group import Group, actor, dispatch_now, service
from app.commands.output import as_json, console, print_json, print_rows, printable
from app.commands.timestamps import TIMESTAMP
from models import Task
from pipeline.follow_ups import decisions, pauses
from pipeline.follow_ups.preview import Preview, explanations
from pipeline.follow_ups.views import load_snapshot
from scale.envelope import InvalidCallback, parse_callback
from workflows.definition.json_schema import json_schema
from workflows.definition.loader import load, load_file
from workflows.definition.model import InvalidWorkflow, Workflow, Workflows
from workflows.docs.examples import run_examples
from workflows.docs.graph import mermaid, svg
from workflows.docs.reference import reference as language
from workflows.planning.view import View, view

MARKS = {True: "yes", False: "no", None: "can't be said"}


@click.group(cls=Group)
def workflows() -> None:
    """Workflow files: checked, drawn and tried before they cost money."""


FILE = click.Path(exists=True, dir_okay=False)


def read(files: Iterable[str]) -> Workflows:
    """The named files, or those of WORKFLOWS_DIR."""
    if not files:
        return load(service().settings.workflows_dir)
    found = [load_file(file) for file in files]
    return Workflows(
        tuple(one for one in found if isinstance(one, Workflow)),
        tuple(one for one in found if isinstance(one, InvalidWorkflow)),
    )


def named(name: str) -> Workflow:
    """A workflow by its name, or the one in a file. Raises ClickException."""
    if name.endswith((".yaml", ".yml")):
        found = load_file(name)
        if isinstance(found, InvalidWorkflow):
            raise click.ClickException("\n".join(map(str, found.errors)))
        return found
    workflow = service().workflows.workflow(name)
    if workflow is None:
        known = ", ".join(sorted(workflow.name for workflow in service().workflows.loaded)) or "none"
        raise click.ClickException(
            f"No workflow {name} is loaded (loaded: {known}). `flask workflows check` says why."
        )
    return workflow


@workflows.command("list")
@as_json
def list_workflows(as_json: bool) -> None:
    """Every workflow file of WORKFLOWS_DIR, also those that are set aside."""
    with service().reader.begin() as connection:
        paused = pauses.paused(connection)
    files = read(())
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "state": "paused" if one.name in paused else "runs",
            "steps": [step.name for step in one.steps],
            "path": one.path,
            "description": one.description,
        }
        for one in files.loaded
    ]
    rows += [
        {
            "name": one.name,
            "state": "broken",
            "steps": [],
            "path": one.path,
            "description": str(one.errors[0]),
        }
        for one in files.invalid
    ]
    if not as_json:
        rows = [{**row, "steps": ", ".join(row["steps"])} for row in rows]
    nothing = f"There is no workflow file in {service().settings.workflows_dir}."
    print_rows(rows, ("name", "state", "steps", "path", "description"), as_json, nothing)


@workflows.command()
@click.argument("files", nargs=-1, type=FILE)
@as_json
def check(files: tuple[str, ...], as_json: bool) -> None:
    """Every error of every workflow file at once, with file, line and field. Ends with 1 when there is one.

    FILES, or all in WORKFLOWS_DIR.
    """
    found = read(files)
    errors = [problem for broken in found.invalid for problem in broken.errors]
    warnings = [problem for workflow in found.loaded for problem in workflow.warnings]
    if as_json:
        print_json(
            {
                "workflows": [workflow.name for workflow in found.loaded],
                "errors": [problem._asdict() for problem in errors],
                "warnings": [problem._asdict() for problem in warnings],
            }
        )
    else:
        for problem in errors:
            click.echo(printable(problem))
        for problem in warnings:
            click.echo(f"warning: {printable(problem)}")
        click.echo(f"{len(found.loaded)} in order, {len(found.invalid)} set aside.")
    sys.exit(1 if errors else 0)


@workflows.command()
@click.argument("name")
@click.option("--format", "form", type=click.Choice(("mermaid", "svg")), default="mermaid", show_default=True)
def graph(name: str, form: str) -> None:
    """Draw a workflow (its name, or a file): Mermaid text, or an SVG picture."""
    click.echo((svg if form == "svg" else mermaid)(named(name)))


@workflows.command()
@click.argument("names", nargs=-1)
@as_json
def test(names: tuple[str, ...], as_json: bool) -> None:
    """Try the examples that workflow files hold: given this payload, expect these requests.

    NAMES of workflows or files, or all in WORKFLOWS_DIR. Ends with 1 when one differs.
    """
    of = service().settings
    chosen = [named(name) for name in names] or list(read(()).loaded)
    rows = [
        {"workflow": workflow.name, "example": tried.example.name, "differences": list(tried.differences)}
        for workflow in chosen
        for tried in run_examples(workflow, of.unique_id_prefix)
    ]
    failed = sum(bool(row["differences"]) for row in rows)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            click.echo(
                f"{'differs' if row['differences'] else 'ok':<8} {printable(row['workflow'])}: {printable(row['example'])}"
            )
            for difference in row["differences"]:
                click.echo(f"         {printable(difference)}")
        click.echo(f"{len(rows) - failed} of {len(rows)} examples are as expected.")
    sys.exit(1 if failed else 0)


@workflows.command()
@click.option("--task", "task_id", metavar="TASK_ID", help="A task that is known here.")
@click.option("--payload", type=FILE, help="The body of a callback, in a file.")
@click.option("--since", type=TIMESTAMP, help="Every task that changed then or later: 2026-01-31, 2h, 7d.")
@click.option("--workflow", "name", metavar="NAME", help="Only this workflow, by its name or its file.")
@as_json
def plan(
    task_id: str | None, payload: str | None, since: datetime | None, name: str | None, as_json: bool
) -> None:
    """Say what would be created, with the exact requests, and where limits would stop. Nothing is written."""
    if sum(value is not None for value in (task_id, payload, since)) != 1:
        raise click.UsageError("Give one of --task, --payload and --since.")
    chosen = [named(name)] if name else list(service().workflows.loaded)
    if task_id is not None:
        views = iter([seen_task(task_id)])
    else:
        views = iter([seen_payload(Path(payload))]) if payload else seen_since(since)  # type: ignore[arg-type]
    preview = Preview(service(), chosen)
    counted: Counter[tuple[str, str, str, str]] = Counter()
    wanted = []
    for seen in views:
        for one in preview.of(seen):
            counted[one["workflow"], one["step"], one["type"], one["state"]] += 1
            if since is None or as_json:
                wanted.append(one)
    if as_json:
        print_json(wanted)
        return
    for one in wanted:
        click.echo(
            f"{one['unique_id']}: {one['state']}"
            + (f" ({printable(one['reason'])})" if one["reason"] else "")
        )
        click.echo(f"POST /v1/task/{one['type']}")
        print_request(one["request"])
    rows = [
        {"workflow": workflow, "step": step, "type": type_name, "would be": state, "tasks": number}
        for (workflow, step, type_name, state), number in sorted(counted.items())
    ]
    print_rows(rows, ("workflow", "step", "type", "would be", "tasks"), False, "Nothing would be created.")


def print_request(request: dict[str, Any]) -> None:
    text = json.dumps(request, indent=2, ensure_ascii=False)
    if sys.stdout.isatty():
        console().print(Syntax(text, "json", background_color="default"))
    else:
        click.echo(text)


def seen_task(task_id: str) -> View:
    """A task as planning sees it. Raises ClickException."""
    with service().reader.begin() as connection:
        seen = load_snapshot(connection, task_id)
        if seen is None:
            known = connection.scalar(select(Task.task_id).where(Task.task_id == task_id))
            raise click.ClickException(
                f"Files of {task_id} are still to be fetched: it is planned once they are read."
                if known
                else f"No task {task_id} is known here."
            )
    return seen.view


def seen_payload(file: Path) -> View:
    """The result in the body of a callback."""
    try:
        callback = parse_callback(file.read_bytes(), "live")
    except InvalidCallback as problem:
        raise click.ClickException(f"{file} would be quarantined: {problem}") from None
    if callback.task is None:
        raise click.ClickException(f"{file} has no task object, so its type is not known.")
    return view(callback.task.raw, callback.response, environment=callback.environment)


def seen_since(moment: datetime) -> Iterator[View]:
    """Every task whose newest event is of then or later, and whose files are read."""
    with service().reader.begin() as connection:
        ids = connection.scalars(select(Task.task_id).where(Task.clock >= moment).order_by(Task.clock)).all()
    for task_id in ids:
        with service().reader.begin() as connection:
            seen = load_snapshot(connection, task_id)
        if seen is not None:
            yield seen.view


@workflows.command()
@click.argument("task_id")
@click.option("--workflow", "name", metavar="NAME", help="Only this workflow.")
@as_json
def explain(task_id: str, name: str | None, as_json: bool) -> None:
    """Say for each step what it asks of a task, whether that holds, and what followed."""
    seen = seen_task(task_id)
    with service().reader.begin() as connection:
        chosen = [named(name)] if name else service().workflows.loaded
        told = explanations(connection, service(), seen, chosen)
    if as_json:
        print_json(told)
        return
    for step_told in told:
        click.echo(
            f"{step_told['workflow']}.{step_told['step']}" + (" (paused)" if step_told["paused"] else "")
        )
        for condition in step_told["conditions"]:
            click.echo(f"  {MARKS[condition['held']]:<14}{condition['name']}: {printable(condition['why'])}")
        if step_told["elements"] != step_told["left"] or step_told["elements"] > 1:
            click.echo(f"  {step_told['left']} of {step_told['elements']} elements are left by `where`")
        for follow_up in step_told["follow_ups"]:
            state = follow_up["state"] or "not recorded yet"
            reason = f": {printable(follow_up['reason'])}" if follow_up["reason"] else ""
            click.echo(f"  → {follow_up['unique_id']} {state}{reason}")
        if not step_told["follow_ups"]:
            click.echo("  → no follow-up")
    if not told:
        click.echo("No workflow is loaded.")


@workflows.command()
def reference() -> None:
    """The language of workflow files: every key, its meaning, type, default and an example."""
    click.echo(language(), nl=False)


@workflows.command()
def schema() -> None:
    """The JSON Schema of workflow files, for editors."""
    print_json(json_schema())


@workflows.command()
@click.argument("name")
def pause(name: str) -> None:
    """Plan nothing for this workflow until it is resumed. What it would have looked at is made up for then."""
    with service().engine.begin() as connection:
        decisions.pause(connection, known(name), actor())
    click.echo(f"{name} is paused.")


@workflows.command()
@click.argument("name")
def resume(name: str) -> None:
    """Plan again, also for what changed during the pause."""
    with service().engine.begin() as connection:
        job_ids = decisions.resume(connection, known(name), actor())
    dispatch_now(job_ids)
    click.echo(f"{name} runs again; {len(job_ids)} tasks that changed meanwhile are looked at now.")


def known(name: str) -> str:
    """The name, if there is such a workflow, broken or not. Raises ClickException."""
    files = service().workflows
    if name not in [one.name for one in (*files.loaded, *files.invalid)]:
        raise click.ClickException(
            f"No workflow {name} is known. `flask workflows list` shows those that are."
        )
    return name
