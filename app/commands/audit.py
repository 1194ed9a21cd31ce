"""`weighbridge audit`: the audit log."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import with_appcontext

from app.api.audit import AuditEntry
from app.commands.group import Command
from app.commands.output import as_json, filters_from, limit, print_rows
from app.extensions import service
from pipeline.operations.queries.audit import list_audit_entries

LISTED = ("at", "actor", "action", "subject", "details")


@click.command("audit", cls=Command)
@click.option("--actor", help="Select by name of the token or user.")
@click.option("--action", help="Select by action, such as follow-up.approve.")
@click.option("--subject", help="Select by the id or name of the target.")
@limit
@as_json
@with_appcontext
def audit(limit: int, as_json: bool, **options: Any) -> None:
    """List decisions of people and tokens, newest first."""
    with service().reader.begin() as connection:
        page = list_audit_entries(connection, filters_from(**options), limit=limit)
    print_rows(AuditEntry(many=True).dump(page.rows), LISTED, as_json, "No matching entries.")
