"""`weighbridge joins …`: what steps that wait for several results came to."""

from __future__ import annotations

from typing import Any

import click

from app.api.joins import JoinDetail
from app.api.tasks import Join
from app.commands.group import Group
from app.commands.output import (
    as_json,
    filters_from,
    limit,
    print_record,
    print_rows,
    warn_about_unknown_filters,
)
from app.extensions import service
from pipeline.operations.queries import joins as queries
from workflows.planning.joins import CONCLUSIONS

LISTED = ("id", "outcome", "verdict", "expected", "opened_at", "fired_at", "reason")


@click.group(cls=Group)
def joins() -> None:
    """List and show joins: steps that wait for several results."""


@joins.command("list")
@click.option("--workflow", help="Select by workflow.")
@click.option("--step", help="Select by the step that waits.")
@click.option("--source", "source_task_id", metavar="TASK_ID", help="Select by source task.")
@click.option("--verdict", type=click.Choice(CONCLUSIONS), help="Select by verdict.")
@click.option(
    "--outcome", type=click.Choice((*queries.OUTCOMES, queries.WAITING)), help="Select by what was done."
)
@limit
@as_json
def list_joins(limit: int, as_json: bool, **options: Any) -> None:
    """List joins, the last opened first."""
    filters = filters_from(**options)
    with service().reader.begin() as connection:
        page = queries.list_joins(connection, filters, limit=limit)
    if not page.rows:
        known = {name: value for name, value in filters.items() if name in ("workflow", "step")}
        warn_about_unknown_filters(known)
    print_rows(Join(many=True).dump(page.rows), LISTED, as_json, "No matching joins.")


@joins.command()
@click.argument("join_id")
@as_json
def show(join_id: str, as_json: bool) -> None:
    """Show one join with its members and its reduced value."""
    with service().reader.begin() as connection:
        row = queries.get_join(connection, join_id)
    print_record(JoinDetail().dump(row), as_json)
