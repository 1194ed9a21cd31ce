"""`weighbridge workflows …`: list, check, pause and document workflow files. Previews: workflow_previews.py."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from app.commands.group import Group, LazyCommands, actor, dispatch_now
from app.commands.output import as_json, print_json, print_rows, printable
from app.extensions import service
from pipeline.follow_ups import decisions, pauses
from pipeline.operations.queries import tasks as queries
from workflows.definition.document import FileProblem
from workflows.definition.json_schema import json_schema
from workflows.definition.loader import load, load_file
from workflows.definition.model import InvalidWorkflow, Workflow, Workflows
from workflows.definition.validation.usage import circles, unseen_filters
from workflows.docs.examples import run_examples
from workflows.docs.graph import mermaid, svg
from workflows.docs.reference import reference as language_reference

FILE = click.Path(exists=True, dir_okay=False)


@click.group(
    cls=Group,
    commands=LazyCommands(
        {
            "backfill": "app.commands.backfills:start_backfill",
            "plan": "app.commands.workflow_previews:plan",
            "explain": "app.commands.workflow_previews:explain",
        }
    ),
)
def workflows() -> None:
    """Check, preview, explain and pause workflows."""


def read(files: Iterable[str]) -> Workflows:
    """Load the named files, or those of WORKFLOWS_DIR."""
    settings = service().settings
    if not files:
        return load(*settings.workflow_folders, python_modules=settings.python_steps)
    found = [load_file(file, python_modules=settings.python_steps) for file in files]
    return Workflows(
        tuple(one for one in found if isinstance(one, Workflow)),
        tuple(one for one in found if isinstance(one, InvalidWorkflow)),
    )


def find(name: str) -> Workflow:
    """Return a loaded workflow by its name, or the one in a file. Raises ClickException."""
    if name.endswith((".yaml", ".yml")):
        found = load_file(name, python_modules=service().settings.python_steps)
        if isinstance(found, InvalidWorkflow):
            raise click.ClickException("\n".join(map(str, found.errors)))
        return found
    workflow = service().workflows.workflow(name)
    if workflow is None:
        known = ", ".join(sorted(workflow.name for workflow in service().workflows.loaded)) or "none"
        raise click.ClickException(
            f"No workflow called {name} is loaded; known: {known}. `weighbridge workflows check` shows why."
        )
    return workflow


def check_name(name: str) -> str:
    """Return the name of a workflow, valid or not. Raises ClickException."""
    files = service().workflows
    every: list[Workflow | InvalidWorkflow] = [*files.loaded, *files.invalid]
    names = sorted(one.name for one in every if one.name)
    if name not in names:
        raise click.ClickException(f"No workflow is called {name}; known: {', '.join(names) or 'none'}.")
    return name


@workflows.command("list")
@as_json
def list_workflows(as_json: bool) -> None:
    """List every workflow file of WORKFLOWS_DIR, also invalid ones."""
    with service().reader.begin() as connection:
        paused = pauses.paused(connection)
    files = read(())
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "state": "paused" if one.name in paused else "active",
            "steps": [step.name for step in one.steps],
            "path": one.path,
            "description": one.description,
        }
        for one in files.loaded
    ]
    rows += [
        {
            "name": one.name,
            "state": "invalid",
            "steps": [],
            "path": one.path,
            "description": str(one.errors[0]),
        }
        for one in files.invalid
    ]
    if not as_json:
        rows = [{**row, "steps": ", ".join(row["steps"])} for row in rows]
    empty = f"No workflow files in {service().settings.workflows_dir}."
    print_rows(rows, ("name", "state", "steps", "path", "description"), as_json, empty)


def usage_warnings(found: Workflows) -> list[FileProblem]:
    """Return a warning for each task type and project in `after` that no stored task has; none without a database."""
    try:
        with service().reader.begin() as connection:
            types, projects = queries.seen_types_and_projects(connection)
    except SQLAlchemyError:  # checking files needs no database
        return []
    return [problem for workflow in found.loaded for problem in unseen_filters(workflow, types, projects)]


@workflows.command()
@click.argument("files", nargs=-1, type=FILE)
@as_json
def check(files: tuple[str, ...], as_json: bool) -> None:
    """Check FILES, or all files of WORKFLOWS_DIR. Exit with 1 if there is an error.

    Every error is printed with its file, line and field.
    """
    found = read(files)
    errors = [problem for invalid in found.invalid for problem in invalid.errors]
    warnings = [problem for workflow in found.loaded for problem in workflow.warnings]
    warnings += [*circles(found.loaded), *usage_warnings(found)]
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
        click.echo(f"{len(found.loaded)} valid, {len(found.invalid)} invalid.")
    sys.exit(1 if errors else 0)


@workflows.command()
@click.argument("name")
@click.option("--format", "form", type=click.Choice(("mermaid", "svg")), default="mermaid", show_default=True)
def graph(name: str, form: str) -> None:
    """Draw a workflow, given by its name or file, as Mermaid or SVG."""
    click.echo((svg if form == "svg" else mermaid)(find(name)))


@workflows.command()
@click.argument("names", nargs=-1)
@as_json
def test(names: tuple[str, ...], as_json: bool) -> None:
    """Run the examples in workflow files: given a payload, expect requests. Exit with 1 if one differs.

    NAMES are workflows or files; by default all of WORKFLOWS_DIR.
    """
    prefix = service().settings.unique_id_prefix
    selected = [find(name) for name in names] or list(read(()).loaded)
    rows = [
        {"workflow": workflow.name, "example": result.example.name, "differences": list(result.differences)}
        for workflow in selected
        for result in run_examples(workflow, prefix)
    ]
    failed = sum(bool(row["differences"]) for row in rows)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            state = "differs" if row["differences"] else "ok"
            click.echo(f"{state:<8} {printable(row['workflow'])}: {printable(row['example'])}")
            for difference in row["differences"]:
                click.echo(f"         {printable(difference)}")
        click.echo(f"{len(rows) - failed} of {len(rows)} examples pass.")
    sys.exit(1 if failed else 0)


@workflows.command()
def reference() -> None:
    """Print the reference of the workflow language."""
    click.echo(language_reference(), nl=False)


@workflows.command()
def schema() -> None:
    """Print the JSON Schema of workflow files, for editors."""
    print_json(json_schema())


@workflows.command()
@click.argument("name")
@as_json
def pause(name: str, as_json: bool) -> None:
    """Pause a workflow: it plans nothing until it is resumed."""
    with service().engine.begin() as connection:
        decisions.pause(connection, check_name(name), actor())
    if as_json:
        print_json({"workflow": name, "paused": True})
    else:
        click.echo(f"Paused {name}.")


@workflows.command()
@click.argument("name")
@as_json
def resume(name: str, as_json: bool) -> None:
    """Resume a workflow. Tasks that changed during the pause are planned now."""
    with service().engine.begin() as connection:
        job_ids = decisions.resume(connection, check_name(name), actor())
    dispatch_now(job_ids)
    if as_json:
        print_json({"workflow": name, "paused": False, "tasks": len(job_ids)})
    else:
        click.echo(f"Resumed {name}; planning {len(job_ids)} tasks that changed during the pause.")
