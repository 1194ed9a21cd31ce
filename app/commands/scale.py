"""`weighbridge scale …`: calls of Scale's API with the keys of this service. Projects and batches: scale_projects.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial, wraps
from itertools import islice
from pathlib import Path
from typing import Any

import click

from app.commands.group import Group, LazyCommands, actor
from app.commands.output import as_json, print_json, print_rows
from app.commands.timestamps import TIMESTAMP
from app.extensions import service
from pipeline.operations.scale_calls import change_at_scale
from scale.client import Client
from scale.environments import ENVIRONMENTS

TASK_COLUMNS = ("task_id", "type", "status", "project", "batch", "unique_id", "created_at", "completed_at")

limit = click.option(
    "--limit",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Maximum number of rows, newest first.",
)


@click.group(
    cls=Group,
    commands=LazyCommands(
        {
            "projects": "app.commands.scale_projects:projects",
            "batches": "app.commands.scale_projects:batches",
        }
    ),
)
def scale() -> None:
    """Call Scale's API and print the answer."""


def call(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --environment to a command and pass it the `client` of that environment."""

    @click.option(
        "--environment",
        type=click.Choice(ENVIRONMENTS),
        help="Environment to call. Default: live, or test if only SCALE_TEST_API_KEY is set.",
    )
    @wraps(command)
    def with_client(environment: str | None, **given: Any) -> Any:
        names = ENVIRONMENTS if environment is None else (environment,)
        client = next((found for name in names if (found := service().client(name)) is not None), None)
        if client is None:
            settings = {"live": "SCALE_API_KEY", "test": "SCALE_TEST_API_KEY"}
            raise click.ClickException(f"Set {' or '.join(settings[name] for name in names)} to call Scale.")
        return command(client=client, **given)

    return with_client


def change(action: str, subject: str, call: Callable[[], Any], **details: Any) -> None:
    """Make a call that changes something at Scale, audit it and print its answer."""
    print_json(change_at_scale(service(), actor(), action, subject, call, **details))


class Json(click.ParamType[Any]):
    """Accept a JSON object, or @FILE that holds one."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the object, or the file that @FILE names. Fails for anything but a JSON object."""
        try:
            text = Path(value[1:]).read_text() if value.startswith("@") else value
            found = json.loads(text)
        except OSError as error:
            self.fail(f"Cannot read {value[1:]}: {error.strerror}.", param, ctx)
        except ValueError as error:
            self.fail(f"Not JSON: {error}.", param, ctx)
        if not isinstance(found, dict):
            self.fail("Not a JSON object.", param, ctx)
        return found


JSON = Json()


def print_objects(
    objects: Iterable[dict[str, Any]], columns: tuple[str, ...], as_json: bool, empty_message: str
) -> None:
    """Print whole objects as JSON, or the `columns` that Scale set as a table."""
    found = list(objects)
    rows = found if as_json else [{name: one.get(name) for name in columns} for one in found]
    print_rows(rows, columns, as_json, empty_message)


@scale.command()
@click.argument("task_id")
@call
def retrieve(client: Client, task_id: str) -> None:
    """Get one task."""
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
    """List tasks, newest first."""
    selected = {name: value for name, value in filters.items() if value not in (None, ())}
    found = islice(client.iter_tasks(limit=min(limit, 100), **selected), limit)
    print_objects(found, TASK_COLUMNS, as_json, "No matching tasks.")


@scale.command()
@click.argument("task_id")
@click.option("--clear-unique-id", is_flag=True, help="Free its unique_id for another task.")
@call
def cancel(client: Client, task_id: str, clear_unique_id: bool) -> None:
    """Cancel a pending task."""
    change("cancel", task_id, partial(client.cancel_task, task_id, clear_unique_id))


@scale.command()
@click.argument("task_id")
@click.argument("result", type=click.Choice(("accept", "reject")))
@click.option("--comments")
@call
def audit(client: Client, task_id: str, result: str, comments: str | None) -> None:
    """Accept or reject a completed task. Scale sends a callback."""
    call = partial(client.audit, task_id, result == "accept", comments)
    change("audit", task_id, call, result=result, comments=comments)


@scale.command()
@click.argument("task_id")
@call
def resend(client: Client, task_id: str) -> None:
    """Send the callback of a finished task again. `weighbridge reconcile` needs no callback."""
    change("resend", task_id, partial(client.resend_callback, task_id))


@scale.command()
@click.argument("task_id")
@click.argument("metadata", type=JSON)
@call
def metadata(client: Client, task_id: str, metadata: Any) -> None:
    """Replace the metadata of a task by a JSON object or @FILE."""
    change("metadata", task_id, partial(client.set_metadata, task_id, metadata))


@scale.group("unique-id", cls=Group)
def unique_id() -> None:
    """Set and clear the unique_id of a task."""


@unique_id.command("set")
@click.argument("task_id")
@click.argument("unique_id")
@call
def set_unique_id(client: Client, task_id: str, unique_id: str) -> None:
    """Set the unique_id of a task."""
    change("unique-id.set", task_id, partial(client.set_unique_id, task_id, unique_id), unique_id=unique_id)


@unique_id.command("clear")
@click.argument("task_id")
@call
def clear_unique_id(client: Client, task_id: str) -> None:
    """Clear the unique_id of a task."""
    change("unique-id.clear", task_id, partial(client.clear_unique_id, task_id))


@scale.group(cls=Group)
def tags() -> None:
    """Set, add and remove the tags of a task, five at most."""


@tags.command("set")
@click.argument("task_id")
@click.argument("tags", nargs=-1)
@call
def set_tags(client: Client, task_id: str, tags: tuple[str, ...]) -> None:
    """Replace all tags."""
    change("tags.set", task_id, partial(client.set_tags, task_id, list(tags)), tags=tags)


@tags.command("add")
@click.argument("task_id")
@click.argument("tags", nargs=-1, required=True)
@call
def add_tags(client: Client, task_id: str, tags: tuple[str, ...]) -> None:
    """Add tags."""
    change("tags.add", task_id, partial(client.add_tags, task_id, list(tags)), tags=tags)


@tags.command("remove")
@click.argument("task_id")
@click.argument("tags", nargs=-1, required=True)
@call
def remove_tags(client: Client, task_id: str, tags: tuple[str, ...]) -> None:
    """Remove tags."""
    change("tags.remove", task_id, partial(client.remove_tags, task_id, list(tags)), tags=tags)
