"""`weighbridge runs …`: first tasks with everything that followed from them, their state and their cost."""

from __future__ import annotations

from typing import Any

import click

from app.api.runs import ListedRun
from app.commands.group import Group
from app.commands.output import (
    as_json,
    filters_from,
    print_record,
    print_rows,
    warn_about_unknown_filters,
)
from app.extensions import service
from pipeline.operations.queries import runs as queries
from scale.environments import ENVIRONMENTS

LISTED = (
    "task_id",
    "state",
    "workflows",
    "tasks",
    "open",
    "environment",
    "started_at",
    "spent",
    "committed",
    "planned",
)
STAGES = ("spent", "committed", "planned")


@click.group(cls=Group)
def runs() -> None:
    """List and show runs: whole chains of tasks."""


@runs.command("list")
@click.option("--workflow", help="Select by a workflow that continues the first task.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Select by environment.")
@click.option("--project", help="Select by project of the first task.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="Maximum number of rows, newest first.",
)
@as_json
def list_runs(limit: int, as_json: bool, **options: Any) -> None:
    """List runs that have follow-ups, newest first."""
    with service().reader.begin() as connection:
        page = queries.list_runs(connection, filters_from(**options), service().prices, limit=limit)
    if not page.rows:
        warn_about_unknown_filters(filters_from(**options))
    rows = ListedRun(many=True).dump(page.rows)
    if not as_json:
        for row in rows:
            row |= {stage: row["cost"][stage]["summary"] for stage in STAGES}
            row["workflows"] = ", ".join(row["workflows"])
    print_rows(rows, LISTED, as_json, "No matching runs.")


@runs.command()
@click.argument("task_id")
@as_json
def show(task_id: str, as_json: bool) -> None:
    """Show the run that a task belongs to. `weighbridge tasks tree` draws its tasks."""
    with service().reader.begin() as connection:
        row = queries.get_run(connection, task_id, service().prices)
    print_record(ListedRun().dump(row), as_json)
