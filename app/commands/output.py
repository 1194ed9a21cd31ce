"""Output of the commands: tables for people, and with `--json` the objects of the REST API for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.extensions import service
from pipeline.operations.queries.known_values import unknown_values
from scale.task_types import TASK_TYPES

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="Maximum number of rows, newest first.",
)

MAX_PIPED_WIDTH = 1000
"""Columns of a table that goes to a file or a pipe: it is never wrapped."""
FREE_TEXT = frozenset(("reason", "last_error", "description", "summary", "message", "details", "attempts"))
"""Columns whose text may wrap. Ids and names never wrap, so that they can be copied."""
MIN_FREE_TEXT_WIDTH = 24
MAX_LISTED = 20


def add_options(*options: Callable[..., Any]) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds these options and arguments to a command. `--help` lists them in this order."""

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], as_json: bool, empty_message: str
) -> None:
    """Print the rows as JSON, or their `columns` as a table, or `empty_message` if there are none.

    Columns without any value are left out. Rows that do not fit the terminal are printed as one block each.
    """
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(empty_message)
        return
    names = [name for name in columns if any(row[name] not in (None, "", []) for row in rows)]
    cells = [[_cell(row[name]) for name in names] for row in rows]
    out = console()
    if _fixed_width(names, cells) <= out.width:
        out.print(_table(names, cells))
    else:
        _print_blocks(names, cells)


def _cell(value: Any) -> str:
    if sys.stdout.isatty() and isinstance(value, str) and (moment := _timestamp(value)) is not None:
        return time_ago(moment)
    return printable(value)


def _timestamp(value: str) -> datetime | None:
    if len(value) < 20 or not value.endswith("Z") or value[4:5] != "-":
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def time_ago(moment: datetime) -> str:
    """Return how long ago a moment was, such as "2 min ago"; its date if it is more than 30 days ago or in the future."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if not -1 <= seconds <= 30 * 86_400:
        return f"{moment:%Y-%m-%d %H:%M}"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(0, int(seconds))} s ago"


def _fixed_width(names: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Return the least width of a table in which only free text wraps."""
    widths = [max(len(name), *(len(row[index]) for row in cells)) for index, name in enumerate(names)]
    return sum(
        min(width, MIN_FREE_TEXT_WIDTH) if name in FREE_TEXT else width
        for name, width in zip(names, widths, strict=True)
    ) + 2 * len(names)


def _table(names: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name.replace("_", " "), no_wrap=name not in FREE_TEXT, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _print_blocks(names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    for index, row in enumerate(cells):
        if index:
            click.echo()
        for name, value in zip(names, row, strict=True):
            _print_field(name, value)


def print_record(record: Mapping[str, Any], as_json: bool) -> None:
    """Print one object, a line for each field."""
    if as_json:
        print_json(record)
        return
    for name, value in record.items():
        _print_field(name, printable(value))


def _print_field(name: str, value: str) -> None:
    click.echo(f"{click.style(name.replace('_', ' ').ljust(20), bold=True)} {value}")


def console() -> Console:
    """Return a console on standard output, as wide as the terminal."""
    return Console(width=None if sys.stdout.isatty() else MAX_PIPED_WIDTH, highlight=False)


def printable(value: Any) -> str:
    """Return one value on one line. Control characters are escaped: labels and texts come from outside."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(value))


def filters_from(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def warn_about_unknown_filters(filters: Mapping[str, Any]) -> None:
    """Print a note for each filter value that matches nothing known. Call it if a list is empty."""
    workflows = service().workflows.loaded
    also_known = {
        "workflow": [workflow.name for workflow in workflows],
        "step": [step.name for workflow in workflows for step in workflow.steps],
        "type": [known.name for known in TASK_TYPES],
        "status": ["pending", "completed", "canceled", "error"],
    }
    with service().reader.begin() as connection:
        unknown = unknown_values(connection, filters, also_known)
    for name, known in unknown.items():
        listed = ", ".join(known[:MAX_LISTED]) or "none"
        more = f" and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
        click.echo(f"No {name} is called {filters[name]}; known: {listed}{more}.", err=True)
