"""`weighbridge follow-ups …`: the tasks that workflows create, and decisions about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from app.api.follow_ups import FollowUp, FollowUpDetail
from app.bulk_decisions import DECISIONS, cost_of, decide_many, select_follow_ups
from app.commands.bulk import print_outcome
from app.commands.group import Group, actor, dispatch_now
from app.commands.output import (
    add_options,
    as_json,
    filters_from,
    limit,
    print_record,
    print_rows,
    warn_about_unknown_filters,
)
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.extensions import service
from pipeline.follow_ups.prices import cost_of_task
from pipeline.operations.queries import follow_ups as queries

LISTED = ("unique_id", "state", "task_type", "task_id", "environment", "planned_at", "reason")


@click.group("follow-ups", cls=Group)
def follow_ups() -> None:
    """List, approve, cancel and retry follow-ups of workflows."""


filters = add_options(
    click.option("--workflow", help="Select by workflow."),
    click.option("--step", help="Select by step."),
    click.option("--source", "source_task_id", metavar="TASK_ID", help="Select by source task."),
)
"""Adds the options that select follow-ups."""

decision = add_options(
    click.argument("unique_ids", nargs=-1),
    filters,
    click.option("--yes", is_flag=True, help="Skip the confirmation."),
    click.option("--since", type=TIMESTAMP, help=f"Planned at or after TIME: {EXAMPLES}."),
    click.option("--limit", type=click.IntRange(1), help="Select only the N oldest of them."),
    click.option("--sample", type=click.IntRange(1), help="Select a random N of them."),
    as_json,
)
"""Adds the arguments and options of a command that decides about follow-ups."""


@follow_ups.command("list")
@click.option("--state", type=click.Choice(queries.STATES), help="Select by state.")
@filters
@limit
@as_json
def list_follow_ups(limit: int, as_json: bool, **options: Any) -> None:
    """List follow-ups, the most recently planned first."""
    with service().reader.begin() as connection:
        page = queries.list_follow_ups(connection, filters_from(**options), limit=limit)
    if not page.rows:
        warn_about_unknown_filters(filters_from(**options))
    print_rows(FollowUp(many=True).dump(page.rows), LISTED, as_json, "No matching follow-ups.")


@follow_ups.command()
@click.argument("unique_id")
@as_json
def show(unique_id: str, as_json: bool) -> None:
    """Show one follow-up with its request."""
    with service().reader.begin() as connection:
        row = queries.get_follow_up(connection, unique_id)
    cost = cost_of_task(service().prices, row["task_type"], row["request"]).to_json()
    print_record(FollowUpDetail().dump({**row, "cost": cost}), as_json)


@follow_ups.command()
@decision
def approve(**options: Any) -> None:
    """Approve held follow-ups, so that their tasks are created."""
    decide("approve", **options)


@follow_ups.command()
@decision
def cancel(**options: Any) -> None:
    """Cancel follow-ups. A task that was created is canceled at Scale by a job."""
    decide("cancel", **options)


@follow_ups.command()
@decision
def retry(**options: Any) -> None:
    """Retry follow-ups that Scale refused."""
    decide("retry", **options)


def decide(
    name: str,
    unique_ids: Sequence[str],
    limit: int | None,
    sample: int | None,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Decide about the named follow-ups, or about those that the options select."""
    selected = filters_from(**options)
    if bool(unique_ids) == bool(selected):
        raise click.UsageError(
            "Pass unique_ids, or select follow-ups by --workflow, --step, --source or --since."
        )
    if not unique_ids:
        unique_ids = select_follow_ups(name, selected, limit=limit, sample=sample)
        if not unique_ids:
            warn_about_unknown_filters(selected)
        elif not yes:
            cost = "" if name == "cancel" else f" Cost: {cost_of(unique_ids).summary}."
            click.confirm(f"{name.capitalize()} {len(unique_ids)} follow-ups?{cost}", abort=True)
    decided, errors = decide_many(name, unique_ids, actor(), dispatch_now)
    print_outcome(decided, errors, "follow-ups", as_json, key="decided", verb=DECISIONS[name].past)
