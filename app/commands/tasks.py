"""`flask tasks …`: a task as it stands, where it comes from and what followed from it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from app.api.problems import ProblemError
from app.api.tasks import Lineage, TaskDetail, TaskSummary, detail, summary, tasks_like
from app.commands.group import Group, service
from app.commands.output import as_json, console, limit, print_json, print_record, print_rows, printable
from app.commands.submit import submit
from app.commands.timestamps import TIMESTAMP
from models import Task
from pipeline.follow_ups.lineage import lineage

LISTED = (
    "task_id",
    "type",
    "status",
    "environment",
    "project",
    "batch",
    "unique_id",
    "annotation_count",
    "completed_at",
)


@click.group(cls=Group)
def tasks() -> None:
    """Tasks of Scale that this service knows."""


tasks.add_command(submit)


@tasks.command("list")
@click.option("--type", metavar="TYPE")
@click.option("--status", help="Scale's own word: pending, completed, canceled, error.")
@click.option("--project")
@click.option("--batch")
@click.option("--environment", type=click.Choice(("live", "test")))
@click.option("--unique-id")
@click.option("--tag", help="One of the task's tags.")
@click.option(
    "--since",
    "updated_since",
    type=TIMESTAMP,
    help="Touched by Scale then or later: 2026-01-31, 2026-01-31T09:30:00Z, 2h, 7d.",
)
@limit
@as_json
def list_tasks(limit: int, as_json: bool, **wanted: Any) -> None:
    """The newest tasks, as far as they are known here."""
    query = {name: value for name, value in wanted.items() if value is not None}
    with service().reader.begin() as connection:
        statement = tasks_like(connection, query).order_by(Task.id.desc()).limit(limit)
        found = [summary(row) for row in connection.execute(statement).mappings()]
    print_rows(TaskSummary(many=True).dump(found), LISTED, as_json, "No task is like that.")


@tasks.command()
@click.argument("task_id")
@as_json
def show(task_id: str, as_json: bool) -> None:
    """One task: what Scale says of it, its current response, its follow-ups and its files."""
    try:
        with service().reader.begin() as connection:
            found = detail(connection, task_id)
    except ProblemError:
        raise unknown(task_id) from None
    print_record(TaskDetail().dump(found), as_json)


@tasks.command()
@click.argument("task_id")
@as_json
def tree(task_id: str, as_json: bool) -> None:
    """Up to the first task, and down to everything that followed, each with its state."""
    with service().reader.begin() as connection:
        found = lineage(connection, task_id)
    if found is None:
        raise unknown(task_id)
    line: dict[str, Any] = Lineage().dump(found)
    if as_json:
        print_json(line)
        return
    *above, task = line["ancestors"]
    top = branch = Tree(described((above or [task])[0]))
    for ancestor in [*above[1:], task] if above else []:
        branch = branch.add(described(ancestor, here=ancestor is task))
    children: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for follow_up in line["descendants"]:
        children[follow_up["source_task_id"]].append(follow_up)
    waiting = [(branch, task_id)]
    while waiting:
        parent, source = waiting.pop()
        for follow_up in children.pop(source, ()):
            child = parent.add(asked_for(follow_up))
            if follow_up["task_id"]:
                waiting.append((child, follow_up["task_id"]))
    run = line["run"]
    console().print(top)
    took = "" if run["duration_seconds"] is None else f", {run['duration_seconds']:.1f} s"
    click.echo(f"The run is {run['state']}: {run['tasks']} tasks{took}.")
    if line["truncated"]:
        click.echo(f"Only the first {len(line['descendants']):,} descendants are shown.")


def described(task: dict[str, Any], here: bool = False) -> Text:
    """An ancestor, or the task itself."""
    said = f"{printable(task['task_id'])}  {printable(task['type'])}, {printable(task['status'])}"
    if task["source"]:
        said += f"  ({printable(task['source']['workflow'])}.{printable(task['source']['step'])})"
    return Text(said, style="bold" if here else "")


def asked_for(follow_up: dict[str, Any]) -> Text:
    """A descendant: the follow-up that asked for it, and its task once there is one."""
    said = f"{printable(follow_up['task_id'] or follow_up['unique_id'])}  {printable(follow_up['task_type'])}, {follow_up['state']}"
    said += f"  ({printable(follow_up['workflow'])}.{printable(follow_up['step'])})"
    return Text(said + (f": {printable(follow_up['reason'])}" if follow_up["reason"] else ""))


def unknown(task_id: str) -> click.ClickException:
    return click.ClickException(f"No task {task_id} is known here. `flask tasks list` shows those that are.")
