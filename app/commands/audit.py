"""`weighbridge audit`: the audit log."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from flask.cli import with_appcontext

from app.api.audit import AuditEntry
from app.commands.group import Command
from app.commands.output import as_json, filters_from, limit, print_rows
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.extensions import service
from pipeline.operations.queries import Record
from pipeline.operations.queries.audit import list_audit_entries

LISTED = ("at", "actor", "action", "subject", "details")
PAGE_ROWS = 1_000
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.command("audit", cls=Command)
@click.option("--actor", help="Select by name of the token or user.")
@click.option("--action", help="Select by action, such as follow-up.approve.")
@click.option("--subject", help="Select by the id or name of the target.")
@click.option("--since", type=TIMESTAMP, help=f"Made at or after TIME: {EXAMPLES}.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@limit
@as_json
@with_appcontext
def audit(limit: int, as_csv: bool, as_json: bool, **options: Any) -> None:
    """List decisions of people and tokens, newest first."""
    rows = AuditEntry(many=True).dump(_read(filters_from(**options), limit))
    if as_csv:
        _print_csv(rows)
    else:
        print_rows(rows, LISTED, as_json, "No matching entries.")


def _read(filters: Record, limit: int) -> list[Mapping[str, Any]]:
    """Return the newest `limit` entries, page by page."""
    found: list[Mapping[str, Any]] = []
    cursor = None
    while len(found) < limit:
        with service().reader.begin() as connection:
            page = list_audit_entries(
                connection, filters, limit=min(PAGE_ROWS, limit - len(found)), cursor=cursor
            )
        found += page.rows
        if (cursor := page.next_cursor) is None:
            break
    return found


def _print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows as CSV. A cell that a spreadsheet would run as a formula begins with an apostrophe."""
    writer = csv.writer(sys.stdout)
    writer.writerow(LISTED)
    for row in rows:
        cells = [
            json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value or "")
            for value in (row[name] for name in LISTED)
        ]
        writer.writerow(f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells)
