"""`weighbridge stats`: numbers about tasks, by project, step, week and status."""

from __future__ import annotations

import csv
import sys
from datetime import datetime

import click
from flask.cli import with_appcontext

from app.api.insights import Insights, read_insights
from app.commands.group import Command
from app.commands.output import as_json, print_json, print_rows
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from pipeline.operations.insights import DEFAULT_GROUPS, DEFINITIONS, GROUPS

SHOWN = (
    "created", "open", "late", "completed", "canceled", "error", "median_seconds", "p90_seconds", "rejected",
    "first_pass_rate", "rejection_rate", "fix_rate", "cost", "cost_per_accepted",
)  # fmt: skip


@click.command(cls=Command)
@click.option(
    "--group-by", default=",".join(DEFAULT_GROUPS), show_default=True, help=f"Names of: {', '.join(GROUPS)}."
)
@click.option("--since", type=TIMESTAMP, help=f"Created at or after TIME: {EXAMPLES}.")
@click.option("--until", type=TIMESTAMP, help="Created before TIME.")
@click.option("--as-of", type=TIMESTAMP, help="The numbers as they were at TIME.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--definitions", is_flag=True, help="Print what each number means.")
@as_json
@with_appcontext
def stats(
    group_by: str,
    since: datetime | None,
    until: datetime | None,
    as_of: datetime | None,
    as_csv: bool,
    definitions: bool,
    as_json: bool,
) -> None:
    """Show how many tasks are open, late and rejected, how long they take and what they cost."""
    names = [name.strip() for name in group_by.split(",")]
    if unknown := [name for name in names if name not in GROUPS]:
        raise click.UsageError(f"No group is called {', '.join(unknown)}; known: {', '.join(GROUPS)}.")
    query = {"group_by": ",".join(names), "since": since, "until": until, "as_of": as_of}
    found = Insights().dump(read_insights(query))
    if as_json:
        print_json(found)
        return
    if as_csv:
        writer = csv.DictWriter(sys.stdout, [*names, *DEFINITIONS], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found["data"])
        return
    if definitions:
        for name, meaning in found["definitions"].items():
            click.echo(f"{name}: {meaning}")
        return
    print_rows(found["data"], (*names, *SHOWN), False, "No tasks.")
    if found["agreement"]:
        click.echo()
        print_rows(found["agreement"], tuple(found["agreement"][0]), False, "")
