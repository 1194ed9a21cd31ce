"""`weighbridge follow-ups …`: the tasks that workflows create, and decisions about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import click
from sqlalchemy import Connection

from app.api.follow_ups import FollowUp, FollowUpDetail
from app.commands.group import Group, actor, dispatch_now, not_found_message
from app.commands.output import (
    as_json,
    filters_from,
    limit,
    print_json,
    print_record,
    print_rows,
    warn_about_unknown_filters,
)
from app.extensions import service
from pipeline.follow_ups import decisions
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import NotFound
from pipeline.operations.queries import follow_ups as queries

LISTED = ("unique_id", "state", "task_type", "task_id", "environment", "planned_at", "reason")
DECISION_BATCH_SIZE = 500
"""Decisions in one transaction."""

Decide = Callable[[Connection, str, str], list[UUID]]


@click.group("follow-ups", cls=Group)
def follow_ups() -> None:
    """List, approve, cancel and retry follow-ups of workflows."""


def filters(command: Any) -> Any:
    """Add the options that select follow-ups."""
    for option in (
        click.option("--source", "source_task_id", metavar="TASK_ID", help="Select by source task."),
        click.option("--step", help="Select by step."),
        click.option("--workflow", help="Select by workflow."),
    ):
        command = option(command)
    return command


def decision(command: Any) -> Any:
    """Add the arguments and options of a command that decides about follow-ups."""
    for option in (
        as_json,
        click.option("--yes", is_flag=True, help="Skip the confirmation."),
        filters,
        click.argument("unique_ids", nargs=-1),
    ):
        command = option(command)
    return command


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
    print_record(FollowUpDetail().dump(row), as_json)


@follow_ups.command()
@decision
def approve(**options: Any) -> None:
    """Approve held follow-ups, so that their tasks are created."""
    decide_many(decisions.approve, "approve", ("held",), **options)


@follow_ups.command()
@decision
def cancel(**options: Any) -> None:
    """Cancel follow-ups. A task that was created is canceled at Scale by a job."""
    decide_many(decisions.cancel, "cancel", ("held", "planned", "created"), **options)


@follow_ups.command()
@decision
def retry(**options: Any) -> None:
    """Retry follow-ups that Scale refused."""
    decide_many(decisions.retry, "retry", ("failed",), **options)


PAST = {"approve": "Approved", "cancel": "Canceled", "retry": "Retried"}


def decide_many(
    decide: Decide,
    verb: str,
    states: tuple[str, ...],
    unique_ids: Sequence[str],
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Decide about the named follow-ups, or about all in `states` that the options select."""
    selected = filters_from(**options)
    if bool(unique_ids) == bool(selected):
        raise click.UsageError("Pass unique_ids, or select follow-ups by --workflow, --step or --source.")
    if not unique_ids:
        with service().reader.begin() as connection:
            unique_ids = queries.matching_unique_ids(connection, selected, states)
        if not unique_ids:
            warn_about_unknown_filters(selected)
        if unique_ids and not yes:
            click.confirm(f"{verb.capitalize()} {len(unique_ids)} follow-ups?", abort=True)
    decided, errors = apply_decisions(decide, unique_ids)
    if as_json:
        print_json({"decided": decided, "errors": errors})
    else:
        click.echo(f"{PAST[verb]} {len(decided)} follow-ups.")
    if errors:
        raise click.ClickException("\n".join(f"{name}: {error}" for name, error in errors.items()))


def apply_decisions(decide: Decide, unique_ids: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the unique_ids that were decided about, and the error of each other one."""
    decided: list[str] = []
    errors: dict[str, str] = {}
    for start in range(0, len(unique_ids), DECISION_BATCH_SIZE):
        job_ids: list[UUID] = []
        with service().engine.begin() as connection:
            for unique_id in unique_ids[start : start + DECISION_BATCH_SIZE]:
                try:
                    queries.get_follow_up(connection, unique_id)
                    job_ids += decide(connection, unique_id, actor())
                    decided.append(unique_id)
                except NotFound as error:
                    errors[unique_id] = not_found_message(error)
                except InvalidTransition as error:
                    errors[unique_id] = str(error)
        dispatch_now(job_ids)
    return decided, errors
