"""What commands print: tables for people, and with `--json` the same rows, under the REST API's names, for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from marshmallow import Schema
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import ColumnElement, Select, select

from app.commands.group import service

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
limit = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest so many."
)

WIDE = 1000
"""Columns where nobody looks: a table that goes into a file or a pipe is never folded."""


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], as_json: bool, nothing: str
) -> None:
    """The rows as JSON, or their `columns` as a table; `nothing` is said where there are none."""
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(nothing)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            table.add_column(name.replace("_", " "), overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(row[name])) for name in columns))
        console().print(table)


def print_record(facts: Mapping[str, Any], as_json: bool) -> None:
    """One thing: a line for each of its fields."""
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{click.style(name.replace('_', ' ').ljust(20), bold=True)} {printable(value)}")


def console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def printable(value: Any) -> str:
    """One value on one line. What a terminal would obey is made visible: labels and texts are a labeler's."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(value))


def fetch_rows(
    schema: type[Schema],
    columns: Sequence[Any],
    where: Iterable[ColumnElement[bool]],
    order: ColumnElement[Any],
    limit: int,
) -> list[dict[str, Any]]:
    """The rows that a list of the REST API would show, in its form."""
    statement: Select[Any] = select(*columns).where(*where).order_by(order).limit(limit)
    with service().reader.begin() as connection:
        found: list[dict[str, Any]] = schema(many=True).dump(connection.execute(statement).mappings().all())
    return found
