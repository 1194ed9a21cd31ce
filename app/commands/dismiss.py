"""What `deliveries dismiss` and `jobs dismiss` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

import click
from sqlalchemy import Connection

from app.commands.group import actor, not_found_message
from app.commands.output import print_json
from pipeline.operations.dismissals import CannotDismiss
from pipeline.operations.queries import NotFound

Outcome = tuple[list[UUID], dict[str, str]]


def dismiss_each(
    connection: Connection,
    ids: Sequence[UUID],
    dismiss: Callable[[Connection, UUID, str, str], None],
    reason: str,
) -> Outcome:
    """Dismiss each of `ids`. Return the dismissed ones, and the message of each other one."""
    dismissed: list[UUID] = []
    errors: dict[str, str] = {}
    for one in ids:
        try:
            dismiss(connection, one, actor(), reason)
            dismissed.append(one)
        except NotFound as error:
            errors[str(one)] = not_found_message(error)
        except CannotDismiss as error:
            errors[str(one)] = str(error)
    return dismissed, errors


def print_dismissed(outcome: Outcome, noun: str, as_json: bool) -> None:
    """Print the outcome. Exit with 1 if something could not be dismissed."""
    dismissed, errors = outcome
    if as_json:
        print_json({"dismissed": dismissed, "errors": errors})
    else:
        click.echo(f"Dismissed {len(dismissed)} {noun}.")
    if errors:
        raise click.ClickException("\n".join(f"{one}: {message}" for one, message in errors.items()))
