"""`weighbridge scale projects …` and `weighbridge scale batches …`."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

import click

from app.commands.group import Group
from app.commands.output import as_json, print_json
from app.commands.scale import JSON, call, change, limit, print_objects
from scale.client import Client

BATCH_COLUMNS = ("name", "project", "status", "created_at")
PROJECT_COLUMNS = ("name", "type", "versions", "created_at")


@click.group(cls=Group)
def projects() -> None:
    """List, show and create projects and versions of their parameters."""


@projects.command("list")
@as_json
@call
def list_projects(client: Client, as_json: bool) -> None:
    """List projects."""
    found = [
        {**project, "versions": len(project.get("param_history") or [])} for project in client.list_projects()
    ]
    print_objects(found, PROJECT_COLUMNS, as_json, "No projects.")


@projects.command("get")
@click.argument("name")
@click.option("--version", type=int, help="Print only the parameters of this version.")
@call
def get_project(client: Client, name: str, version: int | None) -> None:
    """Get one project with every version of its parameters."""
    project = client.get_project(name)
    if version is None:
        print_json(project)
        return
    history = [one for one in project.get("param_history") or [] if one.get("version") == version]
    if not history:
        raise click.ClickException(f"Project {name} has no parameter version {version}.")
    print_json(history[-1])


@projects.command("create")
@click.argument("name")
@click.argument("type")
@click.option("--params", type=JSON, help="Parameters of its tasks: a JSON object or @FILE.")
@click.option("--rapid", is_flag=True, help="Create it in Scale Rapid.")
@click.option("--studio", is_flag=True, help="Create it in Scale Studio.")
@call
def create_project(client: Client, name: str, type: str, params: Any, **kind: bool) -> None:
    """Create a project for tasks of one TYPE."""
    flags = {flag: True for flag, is_set in kind.items() if is_set}
    change("projects.create", name, partial(client.create_project, name, type, params, **flags), type=type)


@projects.command("set-params")
@click.argument("name")
@click.argument("params", type=JSON)
@click.option("--patch", is_flag=True, help="Keep the parameters that PARAMS does not name.")
@call
def set_project_params(client: Client, name: str, params: Any, patch: bool) -> None:
    """Create a new version of a project's parameters from a JSON object or @FILE."""
    change("projects.set-params", name, partial(client.set_project_params, name, params, patch), patch=patch)


@click.group(cls=Group)
def batches() -> None:
    """List, show, create and finalize batches."""


@batches.command("list")
@click.option("--project")
@click.option("--status", type=click.Choice(("staging", "in_progress", "completed")))
@limit
@as_json
@call
def list_batches(client: Client, project: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """List batches, newest first."""
    found = islice(client.iter_batches(project=project, status=status, limit=min(limit, 100)), limit)
    print_objects(found, BATCH_COLUMNS, as_json, "No matching batches.")


@batches.command("get")
@click.argument("name")
@call
def get_batch(client: Client, name: str) -> None:
    """Get one batch."""
    print_json(client.get_batch(name))


@batches.command("status")
@click.argument("name")
@call
def batch_status(client: Client, name: str) -> None:
    """Get the status of a batch and the number of its tasks by status."""
    print_json(client.batch_status(name))


@batches.command("create")
@click.argument("project")
@click.argument("name")
@click.option("--callback", help="URL or e-mail address to notify when the batch is complete.")
@click.option("--metadata", type=JSON, help="Metadata: a JSON object or @FILE.")
@call
def create_batch(client: Client, project: str, name: str, callback: str | None, metadata: Any) -> None:
    """Create a batch in a project."""
    fields = {"metadata": metadata} if metadata is not None else {}
    change(
        "batches.create",
        name,
        partial(client.create_batch, project, name, callback, **fields),
        project=project,
    )


@batches.command("finalize")
@click.argument("name")
@call
def finalize_batch(client: Client, name: str) -> None:
    """Finalize a batch, so that work on it starts."""
    change("batches.finalize", name, partial(client.finalize_batch, name))
