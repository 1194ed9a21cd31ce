"""`weighbridge bulk-actions …`: decisions about many rows that the console or the API began."""

from __future__ import annotations

from uuid import UUID

import click

from app.api.bulk_actions import BulkActionSchema
from app.commands.group import Group, actor
from app.commands.output import as_json, limit, print_record, print_rows
from app.extensions import service
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations import bulk_actions as actions

LISTED = ("id", "action", "actor", "state", "done", "expected", "failed", "created_at", "completed_at")


@click.group("bulk-actions", cls=Group)
def bulk_actions() -> None:
    """List and stop decisions about many rows."""


@bulk_actions.command("list")
@limit
@as_json
def list_actions(limit: int, as_json: bool) -> None:
    """List bulk actions, the newest first."""
    with service().reader.begin() as connection:
        page = actions.list_actions(connection, limit=limit)
    print_rows(BulkActionSchema(many=True).dump(page.rows), LISTED, as_json, "No bulk actions.")


@bulk_actions.command()
@click.argument("action_id", type=click.UUID)
@as_json
def show(action_id: UUID, as_json: bool) -> None:
    """Show one bulk action with its progress."""
    with service().reader.begin() as connection:
        row = actions.get_action(connection, action_id)
    print_record(BulkActionSchema().dump(row), as_json)


@bulk_actions.command()
@click.argument("action_id", type=click.UUID)
@as_json
def stop(action_id: UUID, as_json: bool) -> None:
    """Stop a bulk action after its present batch."""
    try:
        with service().engine.begin() as connection:
            actions.stop_action(connection, action_id, actor())
            row = actions.get_action(connection, action_id)
    except InvalidTransition as error:
        raise click.ClickException(f"{error}.") from None
    print_record(BulkActionSchema().dump(row), as_json)
