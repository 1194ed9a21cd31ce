"""Act on several objects: what `retry` and `dismiss` of jobs, files and deliveries share with decisions about follow-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click
from sqlalchemy import Connection

from app.commands.group import actor, not_found_message
from app.commands.output import print_json
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import NotFound

Id = TypeVar("Id")

reason = click.option("--reason", required=True, help="Why, for the audit log.")


def act_on_each(
    connection: Connection, ids: Iterable[Id], act: Callable[[Connection, Id, str], Any]
) -> tuple[dict[Id, Any], dict[Id, Exception]]:
    """Call `act(connection, id, actor)` for each id. Return what it returned, and the error of each other id."""
    results: dict[Id, Any] = {}
    errors: dict[Id, Exception] = {}
    for one in ids:
        try:
            results[one] = act(connection, one, actor())
        except (NotFound, InvalidTransition) as error:
            errors[one] = error
    return results, errors


def print_outcome(
    done: Sequence[Any],
    errors: Mapping[Any, Exception],
    noun: str,
    as_json: bool,
    *,
    key: str,
    verb: str | None = None,
) -> None:
    """Print how many were done, or as JSON their ids under `key`, and the message of each error. Exit with 1 if there is one."""
    messages = {
        str(one): not_found_message(error) if isinstance(error, NotFound) else str(error)
        for one, error in errors.items()
    }
    if as_json:
        print_json({key: done, "errors": messages})
    else:
        click.echo(f"{verb or key.capitalize()} {len(done)} {noun}.")
    if messages:
        raise click.ClickException("\n".join(f"{one}: {message}" for one, message in messages.items()))
