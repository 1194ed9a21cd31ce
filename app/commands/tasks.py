"""`weighbridge tasks …`: tasks, where they come from and what followed from them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import click
from rich.text import Text
from rich.tree import Tree

from app.api.tasks import Lineage, TaskDetail, TaskSummary
from app.commands.group import Group, LazyCommands
from app.commands.output import (
    as_json,
    console,
    filters_from,
    limit,
    print_json,
    print_record,
    print_rows,
    printable,
    warn_about_unknown_filters,
)
from app.commands.stats import stats
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.extensions import service
from pipeline.follow_ups.lineage import lineage
from pipeline.insights.tasks import GROUPS
from pipeline.operations.queries import Record
from pipeline.operations.queries import tasks as queries
from scale.environments import ENVIRONMENTS

LISTED = (
    "task_id",
    "type",
    "status",
    "environment",
    "project",
    "batch",
    "unique_id",
    "made_by",
    "review",
    "annotation_count",
    "completed_at",
)


@click.group(cls=Group, commands=LazyCommands({"submit": "app.commands.submit:submit"}))
def tasks() -> None:
    """List, show and submit tasks."""


@tasks.command("list")
@click.option("--type", metavar="TYPE", help="Select by task type.")
@click.option("--status", help="Select by Scale's status: pending, completed, canceled, error.")
@click.option("--project", help="Select by project.")
@click.option("--batch", help="Select by batch.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Select by environment.")
@click.option("--unique-id", help="Select by unique_id.")
@click.option("--tag", help="Select by tag.")
@click.option("--review", type=click.Choice(queries.REVIEWS), help="Select by the status of the review.")
@click.option("--workflow", help="Select by the workflow that created the task.")
@click.option("--step", help="Select by the step that created the task.")
@click.option("--label", help="Select by a label of the current response.")
@click.option("--completed-since", type=TIMESTAMP, help="Completed at or after TIME.")
@click.option("--completed-before", type=TIMESTAMP, help="Completed before TIME.")
@click.option("--since", "updated_since", type=TIMESTAMP, help=f"Updated at or after TIME: {EXAMPLES}.")
@click.option("--count", "is_count", is_flag=True, help="Print only how many tasks match, up to 10,000.")
@click.option("--group-by", metavar="NAMES", help=f"Count the matching tasks by: {', '.join(GROUPS)}.")
@limit
@as_json
def list_tasks(limit: int, as_json: bool, is_count: bool, group_by: str | None, **options: Any) -> None:
    """List tasks, the most recently discovered first.

    --group-by project,step prints how many are open, late, completed and rejected in each group.
    """
    if group_by is not None:
        chosen = filters_from(**options)
        if uncounted := sorted(chosen.keys() - set(GROUPS)):
            raise click.UsageError(f"--group-by cannot be combined with --{uncounted[0].replace('_', '-')}.")
        click.get_current_context().invoke(stats, group_by=group_by, as_json=as_json, **chosen)
        return
    if is_count:
        with service().reader.begin() as connection:
            number = queries.count_tasks(connection, filters_from(**options))
        click.echo(json.dumps({"count": number}) if as_json else number)
        return
    with service().reader.begin() as connection:
        page = queries.list_tasks(connection, filters_from(**options), limit=limit)
    if not page.rows:
        warn_about_unknown_filters(filters_from(**options))
    rows = TaskSummary(many=True).dump(page.rows)
    if not as_json:
        rows = [{**row, "made_by": made_by(row), "review": row["review"]["status"]} for row in rows]
    print_rows(rows, LISTED, as_json, "No matching tasks.")


def made_by(task: Record) -> str | None:
    """Return the step that created a task, as <workflow>.<step>."""
    source = task["source"]
    return None if source is None else f"{source['workflow']}.{source['step']}"


@tasks.command()
@click.argument("task_id")
@as_json
def show(task_id: str, as_json: bool) -> None:
    """Show one task with its current response, follow-ups and files."""
    with service().reader.begin() as connection:
        row = queries.get_task(connection, task_id)
    print_record(TaskDetail().dump(row), as_json)


@tasks.command()
@click.argument("task_id")
@as_json
def tree(task_id: str, as_json: bool) -> None:
    """Show the ancestors of a task and everything that followed from it."""
    with service().reader.begin() as connection:
        found = lineage(connection, task_id, service().prices)
    if found is None:
        raise queries.task_not_found(task_id)
    family: Record = Lineage().dump(found)
    if as_json:
        print_json(family)
        return
    console().print(family_tree(family))
    run = family["run"]
    duration = "" if run["duration_seconds"] is None else f", {run['duration_seconds']:.1f} s"
    click.echo(f"Run: {run['state']}, {run['tasks']} tasks{duration}.")
    for stage, cost in run["cost"].items():
        click.echo(f"Cost {stage}: {printable(cost['summary'])}.")
    if family["truncated"]:
        click.echo(f"Only the first {len(family['descendants']):,} descendants are shown.")


def family_tree(family: Record) -> Tree:
    """Return a tree from the first ancestor down to every descendant."""
    *above, task = family["ancestors"]
    top = branch = Tree(describe_task((above or [task])[0]))
    for ancestor in [*above[1:], task] if above else []:
        branch = branch.add(describe_task(ancestor, is_selected=ancestor is task))
    children: dict[str, list[Record]] = defaultdict(list)
    for follow_up in family["descendants"]:
        children[follow_up["source_task_id"]].append(follow_up)
    pending = [(branch, task["task_id"])]
    while pending:
        parent, source = pending.pop()
        for follow_up in children.pop(source, ()):
            child = parent.add(describe_follow_up(follow_up))
            if follow_up["task_id"]:
                pending.append((child, follow_up["task_id"]))
    return top


def describe_task(task: Record, is_selected: bool = False) -> Text:
    """Return the line of an ancestor or of the task itself."""
    text = f"{printable(task['task_id'])}  {printable(task['type'])}, {printable(task['status'])}"
    if task["source"]:
        text += f"  ({printable(task['source']['workflow'])}.{printable(task['source']['step'])})"
    return Text(text, style="bold" if is_selected else "")


def describe_follow_up(follow_up: Record) -> Text:
    """Return the line of a descendant: the created task, or the follow-up while there is none."""
    text = f"{printable(follow_up['task_id'] or follow_up['unique_id'])}  {printable(follow_up['task_type'])}"
    text += f", {follow_up['state']}" + (f", {follow_up['review']}" if follow_up["review"] else "")
    text += f"  ({printable(follow_up['workflow'])}.{printable(follow_up['step'])})"
    if follow_up["answer"]:
        text += f"  {printable(json.dumps(follow_up['answer'], ensure_ascii=False))}"
    return Text(text + (f": {printable(follow_up['reason'])}" if follow_up["reason"] else ""))
