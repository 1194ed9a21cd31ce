"""`weighbridge doctor`: every health check at once, with the fix of each problem."""

from __future__ import annotations

import sys

import click
from flask.cli import with_appcontext
from rich.table import Table
from rich.text import Text

from app.commands.group import Command
from app.commands.output import as_json, console, print_json, printable
from app.extensions import dispatcher, service
from config import SettingsError, load_settings
from pipeline.operations.checks import OK, PROBLEM, SKIPPED, WARNING, Check, Context, run_checks

COLOURS = {OK: "green", WARNING: "yellow", PROBLEM: "bold red", SKIPPED: "dim"}


@click.command(cls=Command)
@as_json
@with_appcontext
def doctor(as_json: bool) -> None:
    """Check settings, database, worker, broker, keys and workflows.

    Exit with 1 if there is a problem. Warnings are for you to judge.
    """
    checks = strict_settings() + run_checks(Context(service(), dispatcher().fault))
    is_healthy = not any(check.state == PROBLEM for check in checks)
    if as_json:
        print_json({"ok": is_healthy, "checks": [check._asdict() for check in checks]})
    else:
        print_checks(checks)
    sys.exit(0 if is_healthy else 1)


def strict_settings() -> list[Check]:
    """Return the settings that only other processes use and that would stop them."""
    try:
        load_settings()
    except SettingsError as error:
        return [Check("settings", PROBLEM, line) for line in str(error).splitlines()]
    return []


def print_checks(checks: list[Check]) -> None:
    """Print each check with its state, message and fix."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        message = Text(printable(check.message))
        if check.fix:
            message.append(f"\n→ {check.fix}", style="italic")
        table.add_row(Text(check.state, style=COLOURS[check.state]), check.name, message)
    console().print(table)
