"""`weighbridge workflows backfill NAME` and `weighbridge backfills …`: a workflow over results that are already stored."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any
from uuid import UUID

import click
from flask.cli import with_appcontext
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.api.backfills import BackfillSchema, preview_body
from app.commands.group import Command, Group, actor, dispatch_now
from app.commands.output import (
    add_options,
    as_json,
    console,
    filters_from,
    limit,
    print_json,
    print_record,
    print_rows,
    printable,
)
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.commands.workflows import find
from app.extensions import service
from pipeline.follow_ups import backfill as backfilling
from pipeline.follow_ups.backfill import BackfillPreview
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import Record
from pipeline.operations.queries import backfills as queries
from scale.environments import ENVIRONMENTS
from workflows.definition.model import Workflow

POLL_SECONDS = 0.5
LISTED = (
    "id", "workflow", "state", "evaluated", "total", "results", "follow_ups", "started_at", "finished_at",
)  # fmt: skip

selection = add_options(
    click.option(
        "--since", type=TIMESTAMP, help=f"Results whose newest event is at or after TIME: {EXAMPLES}."
    ),
    click.option("--until", type=TIMESTAMP, help="Results whose newest event is before TIME."),
    click.option("--project", help="Results of this project."),
    click.option("--type", help="Results of this task type."),
    click.option("--label", help="Results with an annotation of this label."),
    click.option("--batch", help="Results of this batch."),
    click.option("--tag", help="Results whose task has this tag."),
    click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Results of this environment."),
)
"""Adds the options that select results."""


@click.command("backfill", cls=Command)
@click.argument("name")
@selection
@click.option("--limit", type=click.IntRange(1), help="End after N results with new follow-ups.")
@click.option("--rate", type=click.IntRange(1), help="Evaluate at most N results a minute.")
@click.option("--dry-run", is_flag=True, help="Dry run: show what would be created, start nothing.")
@click.option("--wait", is_flag=True, help="Wait until the backfill has ended, and show its progress.")
@click.option("--yes", is_flag=True, help="Skip the preview and the confirmation.")
@as_json
@with_appcontext
def start_backfill(
    name: str,
    limit: int | None,
    rate: int | None,
    dry_run: bool,
    wait: bool,
    yes: bool,
    as_json: bool,
    **options: datetime | str | None,
) -> None:
    """Run a workflow over results that are already stored.

    Shows how many follow-ups it would create, what they would cost, and the first requests; a worker then runs it.
    What exists is not created again, so that running the same backfill twice is free.
    """
    workflow, filters = find(name), filters_from(**options)
    if name != workflow.name:
        raise click.ClickException("Pass the name of a workflow that is loaded, not a file.")
    if dry_run or not yes:
        found = show_preview(workflow, filters, limit, as_json and dry_run)
        if dry_run:
            return
        if not found.results:
            return
        click.confirm(f"Run {name} over these results?", abort=True, err=as_json)
    with service().engine.begin() as connection:
        backfill_id, job_ids = backfilling.start(
            connection, name, filters, actor(), limit=limit, per_minute=rate
        )
    dispatch_now(job_ids)
    if wait:
        follow(backfill_id, as_json)
    if as_json or wait:
        print_backfill(backfill_id, as_json)
    else:
        click.echo(f"Started the backfill {backfill_id}; `weighbridge backfills show` shows its progress.")


def show_preview(workflow: Workflow, filters: Record, limit: int | None, as_json: bool) -> BackfillPreview:
    """Evaluate every result, and print what would be created."""
    with progress() as bar:
        line = bar.add_task("evaluating", total=None)
        for found in backfilling.preview(service(), workflow, filters, limit=limit):
            bar.update(line, completed=found.evaluated, total=found.matching)
    if as_json:
        print_json(preview_body(found))
        return found
    for one in found.examples:
        click.echo(f"{printable(one['unique_id'])}  {one['type']}  {printable(one['request'])}")
    counts = ", ".join(f"{number:,} {state}" for state, number in sorted(found.follow_ups.items()))
    click.echo(
        f"{found.results:,} of {found.evaluated:,} results have new follow-ups"
        f" ({found.matching:,} match the filters): {counts or 'none'}."
    )
    click.echo(f"Cost of what would be created: {found.cost.summary}.")
    return found


@click.group(cls=Group)
def backfills() -> None:
    """List, stop and resume backfills of workflows."""


@backfills.command("list")
@click.option("--workflow", help="Select by workflow.")
@click.option("--state", type=click.Choice(backfilling.STATES), help="Select by state.")
@limit
@as_json
def list_backfills(limit: int, as_json: bool, **options: Any) -> None:
    """List backfills, the newest first."""
    with service().reader.begin() as connection:
        page = queries.list_backfills(connection, filters_from(**options), limit=limit)
    print_rows(BackfillSchema(many=True).dump(page.rows), LISTED, as_json, "No matching backfills.")


@backfills.command()
@click.argument("backfill_id", type=click.UUID)
@as_json
def show(backfill_id: UUID, as_json: bool) -> None:
    """Show one backfill with its progress."""
    print_backfill(backfill_id, as_json)


@backfills.command()
@click.argument("backfill_id", type=click.UUID)
@as_json
def stop(backfill_id: UUID, as_json: bool) -> None:
    """Stop a backfill after the result that it evaluates now."""
    try:
        with service().engine.begin() as connection:
            queries.get_backfill(connection, backfill_id)
            backfilling.stop(connection, backfill_id, actor())
    except InvalidTransition as error:
        raise click.ClickException(f"{error}.") from None
    print_backfill(backfill_id, as_json)


@backfills.command()
@click.argument("backfill_id", type=click.UUID)
@as_json
def resume(backfill_id: UUID, as_json: bool) -> None:
    """Go on with a stopped backfill where it stopped."""
    try:
        with service().engine.begin() as connection:
            queries.get_backfill(connection, backfill_id)
            job_ids = backfilling.resume(connection, backfill_id, actor())
    except InvalidTransition as error:
        raise click.ClickException(f"{error}.") from None
    dispatch_now(job_ids)
    print_backfill(backfill_id, as_json)


def print_backfill(backfill_id: UUID, as_json: bool) -> None:
    """Print one backfill."""
    print_record(BackfillSchema().dump(read(backfill_id)), as_json)


def read(backfill_id: UUID) -> Record:
    """Return the row of one backfill. Raises NotFound."""
    with service().reader.begin() as connection:
        return queries.get_backfill(connection, backfill_id)


def follow(backfill_id: UUID, as_json: bool) -> None:
    """Wait until the backfill has ended, and show its progress."""
    with progress() as bar:
        line = bar.add_task("running", total=None)
        while (row := read(backfill_id))["state"] == backfilling.RUNNING:
            bar.update(line, completed=row["evaluated"], total=row["total"])
            time.sleep(POLL_SECONDS)


def progress() -> Progress:
    """Return a progress bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    out = console()
    return Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
