"""`flask follow-ups …`: the tasks that workflows ask for, and what a person decides about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import click
from sqlalchemy import ColumnElement, Connection, select

from app.api.follow_ups import COLUMNS, STATES, FollowUp, FollowUpDetail
from app.commands.group import Group, actor, dispatch_now, service
from app.commands.output import as_json, fetch_rows, limit, print_record, print_rows
from models import FollowUp as Row
from pipeline.follow_ups import decisions
from pipeline.follow_ups.decisions import InvalidTransition

LISTED = ("unique_id", "state", "task_type", "task_id", "environment", "planned_at", "reason")
AT_ONCE = 500


@click.group("follow-ups", cls=Group)
def follow_ups() -> None:
    """Tasks that the workflows ask for."""


def filters(command: Any) -> Any:
    """Options that choose follow-ups."""
    for option in (
        click.option("--source", "source_task_id", metavar="TASK_ID", help="Those of this task."),
        click.option("--step"),
        click.option("--workflow"),
    ):
        command = option(command)
    return command


def chosen(**wanted: str | None) -> Iterator[ColumnElement[bool]]:
    for name, value in wanted.items():
        if value is not None:
            yield getattr(Row, name) == value


@follow_ups.command("list")
@click.option("--state", type=click.Choice(STATES))
@filters
@limit
@as_json
def list_follow_ups(limit: int, as_json: bool, **wanted: Any) -> None:
    """The newest follow-ups."""
    rows = fetch_rows(FollowUp, COLUMNS, chosen(**wanted), Row.id.desc(), limit)
    print_rows(rows, LISTED, as_json, "No follow-up is like that.")


@follow_ups.command()
@click.argument("unique_id")
@as_json
def show(unique_id: str, as_json: bool) -> None:
    """One follow-up with its request."""
    found = fetch_rows(FollowUpDetail, (*COLUMNS, Row.request), [Row.unique_id == unique_id], Row.id, 1)
    if not found:
        raise click.ClickException(unknown(unique_id))
    print_record(found[0], as_json)


def decision(
    name: str,
    decide: Callable[[Connection, str, str], list[UUID]],
    states: tuple[str, ...],
    done: str,
    what: str,
) -> None:
    """One command that decides: about the follow-ups that are named, or about all that the options choose."""

    @follow_ups.command(name, help=what)
    @click.argument("unique_ids", nargs=-1)
    @filters
    @click.option("--yes", is_flag=True, help="Do not ask.")
    def command(unique_ids: tuple[str, ...], yes: bool, **wanted: Any) -> None:
        if bool(unique_ids) == any(value is not None for value in wanted.values()):
            raise click.UsageError("Name follow-ups, or choose them by --workflow, --step or --source.")
        if not unique_ids:
            with service().reader.begin() as connection:
                statement = (
                    select(Row.unique_id).where(Row.state.in_(states), *chosen(**wanted)).order_by(Row.id)
                )
                unique_ids = tuple(connection.scalars(statement))
            if not yes:
                click.confirm(f"{name} {len(unique_ids)} follow-ups?", abort=True)
        decided, refused = 0, []
        for start in range(0, len(unique_ids), AT_ONCE):
            job_ids: list[UUID] = []
            with service().engine.begin() as connection:
                for unique_id in unique_ids[start : start + AT_ONCE]:
                    try:
                        job_ids += decide(connection, unique_id, actor())
                        decided += 1
                    except LookupError:
                        refused.append(unknown(unique_id))
                    except InvalidTransition as why:
                        refused.append(f"{unique_id}: {why}")
            dispatch_now(job_ids)
        click.echo(f"{decided} {done}.")
        if refused:
            raise click.ClickException("\n".join(refused))


def unknown(unique_id: str) -> str:
    return f"No follow-up {unique_id} is known. `flask follow-ups list` shows those that are."


decision("approve", decisions.approve, ("held",), "approved", "Let held follow-ups be created.")
decision(
    "cancel",
    decisions.cancel,
    ("held", "planned", "created"),
    "canceled",
    "Never create them; one that was created is canceled at Scale a little later.",
)
decision(
    "retry", decisions.retry, ("failed",), "asked for again", "Ask Scale again for those that it refused."
)
