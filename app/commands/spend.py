"""`weighbridge spend`: what is planned, committed, spent and left."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from app.api.spend import SpendReport
from app.commands.group import Command
from app.commands.output import as_json, print_json, print_rows, printable
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.extensions import service
from pipeline.operations.queries.spend import GROUPS, STAGES, spend_report

LIMIT_COLUMNS = ("limit", "used", "left", "unit")


@click.command(cls=Command)
@click.option("--by", type=click.Choice(GROUPS), default="workflow", show_default=True, help="Group by this.")
@click.option("--since", type=TIMESTAMP, help=f"Created or planned at or after TIME: {EXAMPLES}.")
@click.option("--until", type=TIMESTAMP, help="Created or planned before TIME.")
@as_json
@with_appcontext
def spend(by: str, since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Show what tasks cost by the price list, and what the limits have left.

    Planned: follow-ups that are planned or held. Committed: tasks at Scale without a result. Spent: tasks with a result.
    """
    with service().reader.begin() as connection:
        report = spend_report(connection, service().workflows, {"by": by, "since": since, "until": until})
    if as_json:
        print_json(SpendReport().dump(report))
        return
    names = ("workflow", "step") if by == "step" else (by,)
    rows = [_row(row, names) for row in report["data"]]
    print_rows(rows, (*names, "tasks", *STAGES), False, "No tasks.")
    for stage in STAGES:
        click.echo(f"Total {stage}: {printable(report['total'][stage]['summary'])}.")
    if report["limits"]:
        click.echo()
        print_rows(report["limits"], LIMIT_COLUMNS, False, "")


def _row(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    costs = {stage: row[stage]["summary"] for stage in STAGES}
    return {**{name: row[name] or "(none)" for name in names}, "tasks": row["tasks"], **costs}
