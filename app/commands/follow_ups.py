"""`weighbridge follow-ups …`: the tasks that workflows create, and decisions about them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click

from app.api.follow_ups import FollowUp, FollowUpDetail
from app.bulk_decisions import (
    DECISIONS,
    cost_of,
    decide_many,
    preview_replan,
    replan_many,
    select_follow_ups,
    select_to_replan,
    states_of,
)
from app.commands.bulk import MAX_PRINTED, print_errors, print_outcome
from app.commands.group import Group, actor, dispatch_now
from app.commands.output import (
    add_options,
    as_json,
    filters_from,
    limit,
    print_json,
    print_record,
    print_rows,
    printable,
    warn_about_unknown_filters,
)
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.extensions import service
from pipeline.follow_ups.prices import Cost, cost_of_task
from pipeline.follow_ups.replan import STATES as REPLANNED_STATES
from pipeline.operations.queries import follow_ups as queries
from scale.environments import ENVIRONMENTS

MAX_SHOWN_CHANGES = 5
LISTED = ("unique_id", "state", "task_type", "task_id", "environment", "planned_at", "reason")


@click.group("follow-ups", cls=Group)
def follow_ups() -> None:
    """List, approve, cancel, retry and replan follow-ups of workflows."""


filters = add_options(
    click.option("--workflow", help="Select by workflow."),
    click.option("--step", help="Select by step."),
    click.option("--source", "source_task_id", metavar="TASK_ID", help="Select by source task."),
    click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Select by environment."),
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
    """Cancel follow-ups. A task that was created is canceled at Scale by a job.

    Shows first how many they are, how many are tasks at Scale, and what they cost. `runs list` and `jobs list` show the
    progress; what is interrupted goes on by itself.
    """
    decide("cancel", **options)


@follow_ups.command()
@decision
def retry(**options: Any) -> None:
    """Retry follow-ups that Scale refused."""
    decide("retry", **options)


@follow_ups.command()
@click.option(
    "--state",
    "states",
    type=click.Choice(REPLANNED_STATES),
    multiple=True,
    help="Select by state; may be repeated. Default: skipped.",
)
@click.option("--dry-run", is_flag=True, help="Dry run: show what would change, change nothing.")
@decision
def replan(
    unique_ids: tuple[str, ...],
    states: tuple[str, ...],
    limit: int | None,
    sample: int | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Plan follow-ups again with today's workflow file.

    Takes follow-ups that are skipped, failed, held, canceled or in error, and shows how their requests would change.
    A task that exists at Scale is never created twice.
    """
    selected = filters_from(**options)
    require_selection(unique_ids, selected)
    if not unique_ids:
        unique_ids = tuple(select_to_replan(selected, states or ("skipped",), limit=limit, sample=sample))
        if not unique_ids:
            warn_about_unknown_filters(selected)
    previews, cost = preview_replan(unique_ids)
    if dry_run or not as_json:
        print_replans(previews, cost, as_json)
    planned = [one["unique_id"] for one in previews if one["refused"] is None]
    if not dry_run and planned:
        if not yes:
            click.confirm(f"Plan {len(planned)} follow-ups again?", abort=True, err=as_json)
        done = replan_many(planned, actor(), dispatch_now)
        refused = {one["unique_id"]: one["refused"] for one in done if one["refused"] is not None}
        if not as_json:
            click.echo(f"Planned {len(done) - len(refused)} follow-ups again.")
            print_errors(refused)
        previews = [*done, *(one for one in previews if one["refused"] is not None)]
    if as_json and not dry_run:
        print_json(previews)
    if any(one["refused"] is not None for one in previews):
        raise click.exceptions.Exit(1)


def print_replans(previews: Sequence[Mapping[str, Any]], cost: Cost, as_json: bool) -> None:
    """Print what each follow-up would become, and the counts."""
    if as_json:
        print_json(previews)
        return
    planned = [one for one in previews if one["refused"] is None]
    for one in planned[:MAX_PRINTED]:
        click.echo(f"{printable(one['unique_id'])}: {one['state']} ({printable(one['reason'])})")
        for new in one["follow_ups"]:
            reason = f" ({printable(new['reason'])})" if new["reason"] else ""
            click.echo(f"  → {printable(new['unique_id'])} {new['state']}{reason}")
            for change in new["changes"][:MAX_SHOWN_CHANGES]:
                before, after = (
                    printable(json.dumps(change[side], ensure_ascii=False)) for side in ("before", "after")
                )
                click.echo(f"      {printable(change['path'])}: {before} → {after}")
            if len(new["changes"]) > MAX_SHOWN_CHANGES:
                click.echo(f"      … and {len(new['changes']) - MAX_SHOWN_CHANGES} more changes")
    if len(planned) > MAX_PRINTED:
        click.echo(f"… and {len(planned) - MAX_PRINTED} more; --json prints all")
    print_errors({one["unique_id"]: one["refused"] for one in previews if one["refused"] is not None})
    counts = Counter(new["state"] for one in planned for new in one["follow_ups"])
    would = ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "no"
    click.echo(f"{would} follow-ups, as far as the limits allow. Cost: {cost.summary}.")


def require_selection(unique_ids: Sequence[str], selected: Mapping[str, Any]) -> None:
    """Raise UsageError unless follow-ups are either named or selected by options."""
    if bool(unique_ids) == bool(selected):
        raise click.UsageError(
            "Pass unique_ids, or select follow-ups by --workflow, --step, --source, --environment or --since."
        )


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
    require_selection(unique_ids, selected)
    if not unique_ids:
        unique_ids = select_follow_ups(name, selected, limit=limit, sample=sample)
        if not unique_ids:
            warn_about_unknown_filters(selected)
        elif not yes:
            at_scale = f" {states_of(unique_ids).get('created', 0)} of them are tasks at Scale."
            more = f"{at_scale if name == 'cancel' else ''} Cost: {cost_of(unique_ids).summary}."
            click.confirm(f"{name.capitalize()} {len(unique_ids)} follow-ups?{more}", abort=True)
    decided, errors = decide_many(name, unique_ids, actor(), dispatch_now)
    print_outcome(decided, errors, "follow-ups", as_json, key="decided", verb=DECISIONS[name].past)
