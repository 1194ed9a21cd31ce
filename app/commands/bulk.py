"""Act on several objects: what `retry` and `dismiss` of jobs, files and deliveries share with decisions about follow-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click
from sqlalchemy import Connection

from app.commands.errors import not_found_message
from app.commands.group import actor
from app.commands.output import print_json, printable
from pipeline.artifacts.retry import ArtifactPurged
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import NotFound

Id = TypeVar("Id")

MAX_PRINTED = 20
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
        except (NotFound, InvalidTransition, ArtifactPurged) as error:
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
        print_errors(messages)
        raise click.exceptions.Exit(1)


def print_errors(errors: Mapping[str, str]) -> None:
    """Print what stays as it is, that of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for unique_id, reason in errors.items():
        by_reason.setdefault(reason.replace(unique_id, "…"), []).append(unique_id)
    for reason, unique_ids in by_reason.items():
        more = f" and {len(unique_ids) - MAX_PRINTED} more" if len(unique_ids) > MAX_PRINTED else ""
        if len(unique_ids) == 1:
            reason = reason.replace("…", unique_ids[0])
        listed = ", ".join(map(printable, unique_ids[:MAX_PRINTED]))
        click.echo(f"{listed}{more}: {printable(reason)}", err=True)
