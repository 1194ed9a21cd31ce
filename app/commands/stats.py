"""`weighbridge stats`: numbers about tasks, by project, step, week and status."""

from __future__ import annotations

import csv
import sys
from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from app.api.insights import Insights, read_insights
from app.api.problems import ProblemError
from app.commands.group import Command
from app.commands.output import as_json, print_json, print_rows
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from pipeline.insights import DEFAULT_GROUPS, KEYS, TABLES
from pipeline.insights.tasks import GROUPS

SHOWN = (
    "created", "open", "late", "completed", "canceled", "error", "median_seconds", "p90_seconds", "rejected",
    "first_pass_rate", "rejection_rate", "fix_rate", "cost", "cost_per_accepted", "cost_per_accepted_annotation",
)  # fmt: skip
TABLE_NAMES = {"groups": "data", **{name.replace("_", "-"): name for name in TABLES if name != "data"}}


@click.command(cls=Command)
@click.option(
    "--group-by", default=",".join(DEFAULT_GROUPS), show_default=True, help=f"Names of: {', '.join(GROUPS)}."
)
@click.option("--project", help="Count tasks of this project.")
@click.option("--workflow", help="Count tasks that this workflow created.")
@click.option("--step", help="Count tasks that this step created.")
@click.option("--type", help="Count tasks of this type.")
@click.option("--batch", help="Count tasks of this batch.")
@click.option("--since", type=TIMESTAMP, help=f"Created at or after TIME: {EXAMPLES}.")
@click.option("--until", type=TIMESTAMP, help="Created before TIME.")
@click.option("--as-of", type=TIMESTAMP, help="The numbers as they were at TIME.")
@click.option(
    "--table",
    type=click.Choice(tuple(TABLE_NAMES)),
    help="Print one table: numbers of groups, agreement of copies, what fixes changed, labels by week, budget.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--definitions", is_flag=True, help="Print what each number means.")
@as_json
@with_appcontext
def stats(
    group_by: str, table: str | None, as_csv: bool, definitions: bool, as_json: bool, **query: datetime | str | None
) -> None:  # fmt: skip
    """Show how many tasks are open, late and rejected, how long they take and what they cost."""
    names = [name.strip() for name in group_by.split(",")]
    if unknown := [name for name in names if name not in GROUPS]:
        raise click.UsageError(f"No group is called {', '.join(unknown)}; known: {', '.join(GROUPS)}.")
    try:
        found: dict[str, Any] = Insights().dump(read_insights({"group_by": ",".join(names), **query}, None))
    except ProblemError as error:
        raise click.ClickException(error.detail) from None
    if as_json:
        print_json(found)
        return
    if definitions:
        for name, meaning in found["definitions"].items():
            click.echo(f"{name}: {meaning}")
        return
    chosen = TABLE_NAMES[table or "groups"]
    if as_csv:
        columns = names if chosen == "data" else KEYS[chosen]
        writer = csv.DictWriter(sys.stdout, [*columns, *TABLES[chosen]], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found[chosen])
        return
    if chosen != "data":
        print_rows(found[chosen], (*KEYS[chosen], *TABLES[chosen]), False, "Nothing is counted.")
        return
    print_rows(found["data"], (*names, *SHOWN), False, "No tasks.")
    if table is None and found["agreement"]:
        click.echo()
        print_rows(found["agreement"], (*KEYS["agreement"], *TABLES["agreement"]), False, "")
