"""`flask scale …`: Scale's own API from a terminal, with the keys of this service."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any

import click

from app.commands.group import Group, actor, service
from app.commands.output import as_json, print_json, print_rows
from app.commands.timestamps import TIMESTAMP
from pipeline.access.audit import log_action
from scale.client import Client

TASK_COLUMNS = ("task_id", "type", "status", "project", "batch", "unique_id", "created_at", "completed_at")
BATCH_COLUMNS = ("name", "project", "status", "created_at")
PROJECT_COLUMNS = ("name", "type", "versions", "created_at")

limit = click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many."
)


@click.group(cls=Group)
def scale() -> None:
    """Call Scale. Each command prints what Scale answers."""


def call(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that asks Scale: it is given the `client` of the chosen environment."""

    @click.option(
        "--environment",
        type=click.Choice(("live", "test")),
        help="Default: live, or test where only SCALE_TEST_API_KEY is set.",
    )
    @wraps(command)
    def with_client(environment: str | None, **given: Any) -> Any:
        names = ("live", "test") if environment is None else (environment,)
        client = next((found for name in names if (found := service().client(name)) is not None), None)
        if client is None:
            settings = {"live": "SCALE_API_KEY", "test": "SCALE_TEST_API_KEY"}
            raise click.ClickException(
                f"Set {' or '.join(settings[name] for name in names)}: Scale is asked with it."
            )
        return command(client=client, **given)

    return with_client


def changed(action: str, subject: str, answer: Any, **details: Any) -> None:
    """Print the answer to a call that changed something, and note in the audit log who made it."""
    with service().engine.begin() as connection:
        log_action(connection, actor(), f"scale.{action}", subject, details or None)
    print_json(answer)


class Json(click.ParamType[Any]):
    """JSON, or @FILE that holds it."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            text = Path(value[1:]).read_text() if value.startswith("@") else value
            found = json.loads(text)
        except OSError as fault:
            self.fail(f"{value[1:]} can't be read: {fault.strerror}", param, ctx)
        except ValueError as fault:
            self.fail(f"not JSON: {fault}", param, ctx)
        if not isinstance(found, dict):
            self.fail("it is no JSON object", param, ctx)
        return found


JSON = Json()


# Tasks.


@scale.command()
@click.argument("task_id")
@call
def retrieve(client: Client, task_id: str) -> None:
    """One task as it is at Scale."""
    print_json(client.get_task(task_id))


@scale.command("list")
@click.option("--project")
@click.option("--batch")
@click.option("--type")
@click.option("--status", type=click.Choice(("pending", "completed", "canceled", "error")))
@click.option("--review", "customer_review_status", help="accepted, fixed, commented, rejected, pending.")
@click.option("--tag", "tags", multiple=True)
@click.option("--unique-id", "unique_id", multiple=True)
@click.option("--created-since", "start_time", type=TIMESTAMP)
@click.option("--updated-since", "updated_after", type=TIMESTAMP)
@click.option("--completed-since", "completed_after", type=TIMESTAMP)
@limit
@as_json
@call
def list_tasks(
    client: Client, limit: int, as_json: bool, **filters: str | datetime | tuple[str, ...] | None
) -> None:
    """Tasks, newest first."""
    wanted = {name: value for name, value in filters.items() if value not in (None, ())}
    found = list(islice(client.iter_tasks(limit=min(limit, 100), **wanted), limit))
    print_rows(_shown(found, TASK_COLUMNS, as_json), TASK_COLUMNS, as_json, "No task is like that.")


@scale.command()
@click.argument("task_id")
@click.option("--clear-unique-id", is_flag=True, help="Let another task have its unique_id.")
@call
def cancel(client: Client, task_id: str, clear_unique_id: bool) -> None:
    """Cancel a pending task."""
    changed("cancel", task_id, client.cancel_task(task_id, clear_unique_id))


@scale.command()
@click.argument("task_id")
@click.argument("result", type=click.Choice(("accept", "reject")))
@click.option("--comments")
@call
def audit(client: Client, task_id: str, result: str, comments: str | None) -> None:
    """Accept or reject a completed task; a callback tells of it."""
    answer = client.audit(task_id, result == "accept", comments)
    changed("audit", task_id, answer, result=result, comments=comments)


@scale.command()
@click.argument("task_id")
@call
def resend(client: Client, task_id: str) -> None:
    """Have the callback of a finished task sent again. `flask reconcile` needs no callback."""
    changed("resend", task_id, client.resend_callback(task_id))


@scale.command()
@click.argument("task_id")
@click.argument("metadata", type=JSON)
@call
def metadata(client: Client, task_id: str, metadata: Any) -> None:
    """Replace the metadata of a task by a JSON object, or by @FILE that holds one."""
    changed("metadata", task_id, client.set_metadata(task_id, metadata))


@scale.group("unique-id", cls=Group)
def unique_id() -> None:
    """The unique_id of a task."""


@unique_id.command("set")
@click.argument("task_id")
@click.argument("unique_id")
@call
def set_unique_id(client: Client, task_id: str, unique_id: str) -> None:
    """Give a task another unique_id."""
    changed("unique-id.set", task_id, client.set_unique_id(task_id, unique_id), unique_id=unique_id)


@unique_id.command("clear")
@click.argument("task_id")
@call
def clear_unique_id(client: Client, task_id: str) -> None:
    """Take its unique_id from a task."""
    changed("unique-id.clear", task_id, client.clear_unique_id(task_id))


@scale.group(cls=Group)
def tags() -> None:
    """The tags of a task, five at the most."""


@tags.command("set")
@click.argument("task_id")
@click.argument("tags", nargs=-1)
@call
def set_tags(client: Client, task_id: str, tags: tuple[str, ...]) -> None:
    """Replace all tags."""
    changed("tags.set", task_id, client.set_tags(task_id, list(tags)), tags=tags)


@tags.command("add")
@click.argument("task_id")
@click.argument("tags", nargs=-1, required=True)
@call
def add_tags(client: Client, task_id: str, tags: tuple[str, ...]) -> None:
    """Add tags to those that are there."""
    changed("tags.add", task_id, client.add_tags(task_id, list(tags)), tags=tags)


@tags.command("remove")
@click.argument("task_id")
@click.argument("tags", nargs=-1, required=True)
@call
def remove_tags(client: Client, task_id: str, tags: tuple[str, ...]) -> None:
    """Take tags off."""
    changed("tags.remove", task_id, client.remove_tags(task_id, list(tags)), tags=tags)


# Projects.


@scale.group(cls=Group)
def projects() -> None:
    """Projects, and the versions of their parameters."""


@projects.command("list")
@as_json
@call
def list_projects(client: Client, as_json: bool) -> None:
    """All projects."""
    found = [
        {**project, "versions": len(project.get("param_history") or [])} for project in client.list_projects()
    ]
    print_rows(_shown(found, PROJECT_COLUMNS, as_json), PROJECT_COLUMNS, as_json, "There is no project.")


@projects.command("get")
@click.argument("name")
@click.option("--version", type=int, help="Only the parameters of this version.")
@call
def get_project(client: Client, name: str, version: int | None) -> None:
    """One project with every version of its parameters; a task names one by project_param_version."""
    project = client.get_project(name)
    if version is None:
        print_json(project)
        return
    history = [one for one in project.get("param_history") or [] if one.get("version") == version]
    if not history:
        raise click.ClickException(f"The project {name} has no version {version} of its parameters.")
    print_json(history[-1])


@projects.command("create")
@click.argument("name")
@click.argument("type")
@click.option("--params", type=JSON, help="Parameters of its tasks: a JSON object, or @FILE.")
@click.option("--rapid", is_flag=True, help="Of Scale Rapid.")
@click.option("--studio", is_flag=True, help="Of Scale Studio.")
@call
def create_project(client: Client, name: str, type: str, params: Any, **kind: bool) -> None:
    """Make a project for tasks of one TYPE."""
    flags = {flag: True for flag, wanted in kind.items() if wanted}
    changed("projects.create", name, client.create_project(name, type, params, **flags), type=type)


@projects.command("set-params")
@click.argument("name")
@click.argument("params", type=JSON)
@click.option("--patch", is_flag=True, help="Keep the parameters that are not named.")
@call
def set_project_params(client: Client, name: str, params: Any, patch: bool) -> None:
    """Give a project a new version of its parameters: a JSON object, or @FILE that holds one."""
    changed("projects.set-params", name, client.set_project_params(name, params, patch), patch=patch)


# Batches.


@scale.group(cls=Group)
def batches() -> None:
    """Batches of tasks."""


@batches.command("list")
@click.option("--project")
@click.option("--status", type=click.Choice(("staging", "in_progress", "completed")))
@limit
@as_json
@call
def list_batches(client: Client, project: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """Batches, newest first."""
    found = list(islice(client.iter_batches(project=project, status=status, limit=min(limit, 100)), limit))
    print_rows(_shown(found, BATCH_COLUMNS, as_json), BATCH_COLUMNS, as_json, "No batch is like that.")


@batches.command("get")
@click.argument("name")
@call
def get_batch(client: Client, name: str) -> None:
    """One batch."""
    print_json(client.get_batch(name))


@batches.command("status")
@click.argument("name")
@call
def batch_status(client: Client, name: str) -> None:
    """The state of a batch, and how many of its tasks are in which."""
    print_json(client.batch_status(name))


@batches.command("create")
@click.argument("project")
@click.argument("name")
@click.option("--callback", help="Address or e-mail address that hears when the batch is complete.")
@click.option("--metadata", type=JSON, help="A JSON object, or @FILE.")
@call
def create_batch(client: Client, project: str, name: str, callback: str | None, metadata: Any) -> None:
    """Make a batch in a project."""
    fields = {"metadata": metadata} if metadata is not None else {}
    changed("batches.create", name, client.create_batch(project, name, callback, **fields), project=project)


@batches.command("finalize")
@click.argument("name")
@call
def finalize_batch(client: Client, name: str) -> None:
    """Let the work on a batch begin: no more tasks come."""
    changed("batches.finalize", name, client.finalize_batch(name))


def _shown(found: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> list[dict[str, Any]]:
    """The objects as they are, or what a table has of them."""
    return found if as_json else [{name: one.get(name) for name in columns} for one in found]
