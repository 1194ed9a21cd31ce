"""`flask reconcile` and `flask import`: results that no callback brought, from Scale's own list or from files."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.commands.group import Command, dispatch_now, service
from app.commands.output import as_json, print_json, print_record, printable
from app.commands.timestamps import TIMESTAMP
from pipeline.sync import reconcile as pass_through
from pipeline.sync.imports import Import, UnreadableImport, import_file
from pipeline.sync.reconcile import THROTTLED_SECONDS, ReconcileRun
from scale.client import Throttled, TransientError

FAILURES = 8
"""So often in a row Scale may fail, with longer and longer pauses between, before the command gives up."""


@click.command("reconcile", cls=Command)
@click.option(
    "--since", type=TIMESTAMP, help="Tasks that changed then or later: 2026-01-31, 12h, 7d. Default: all."
)
@click.option("--project", help="Only tasks of this project.")
@click.option("--environment", type=click.Choice(("live", "test")), help="Default: each that has an API key.")
@click.option("--dry-run", is_flag=True, help="Only say what differs.")
@as_json
@with_appcontext
def reconcile(
    since: datetime | None, project: str | None, environment: str | None, dry_run: bool, as_json: bool
) -> None:
    """Take from Scale's list of tasks what no callback has told, and say what that was.

    A run that was interrupted goes on where it stopped. Old results buy no follow-ups by themselves.
    """
    with_key = [name for name in ("live", "test") if service().client(name) is not None]
    chosen = with_key if environment is None else [environment]
    if not chosen or environment not in (None, *with_key):
        raise click.ClickException(
            "There is no API key to ask Scale with: set SCALE_API_KEY for live tasks, SCALE_TEST_API_KEY for test tasks."
        )
    reports = []
    for name in chosen:
        run = pass_through.begin(service(), name, since=since, project=project)
        if run.position and not as_json:
            click.echo(f"Going on with the {name} run that was interrupted after {run.seen} tasks.")
        with progress(f"{name} tasks") as (bar, line):
            for page in patiently(run, dry_run=dry_run):
                run = page
                bar.update(line, completed=run.seen, total=run.total)
                dispatch_now([job_id for one in run.found for job_id in one.jobs])
                for one in run.found if not as_json else ():
                    click.echo(f"{printable(one.task_id)}: {one.why}, {one.receipt or 'not taken'}")
        counts = ("seen", "missing", "stale", "repaired")
        reports.append({"environment": name} | {count: getattr(run, count) for count in counts})
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            print_record(report, as_json)


def patiently(run: ReconcileRun, *, dry_run: bool) -> Iterator[ReconcileRun]:
    """The pages of a run. Scale's pauses are waited out, and its failures for a while."""
    failures = 0
    while not run.finished:
        try:
            for page in pass_through.reconcile(service(), run, dry_run=dry_run):
                run, failures = page, 0
                yield run
        except (Throttled, TransientError) as fault:
            failures += 1
            if failures == FAILURES:
                raise
            pause = fault.retry_after or min(THROTTLED_SECONDS, 2.0**failures)
            click.echo(f"Scale says: {fault.message}. Again in {pause:.0f} s.", err=True)
            time.sleep(pause)


@click.command("import", cls=Command)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--environment",
    type=click.Choice(("live", "test")),
    default="live",
    show_default=True,
    help="Of objects that do not say is_test.",
)
@click.option("--restart", is_flag=True, help="Begin anew where an earlier run of a file was interrupted.")
@click.option("--dry-run", is_flag=True, help="Only say what is new.")
@as_json
@with_appcontext
def import_files(
    files: tuple[Path, ...], environment: str, restart: bool, dry_run: bool, as_json: bool
) -> None:
    """Take task objects from JSON files: the dashboard's mass export, single tasks, e-mail callbacks.

    A file may hold one object, a list, or an object a line. Each is taken as its callback would have been, only where
    it says something new. Old results buy no follow-ups by themselves.
    """
    reports: list[dict[str, Any]] = []
    for path in files:
        size = path.stat().st_size
        state = Import()
        with path.open("rb") as file, progress(path.name) as (bar, line):
            try:
                for state in import_file(service(), file, environment, resume=not restart, dry_run=dry_run):
                    bar.update(line, completed=state.bytes, total=size)
                    dispatch_now(state.jobs)
            except UnreadableImport as fault:
                raise click.ClickException(f"{path}: {fault}") from None
        counts = ("objects", "skipped", "missing", "stale", "taken", "quarantined")
        reports.append({"file": str(path)} | {count: getattr(state, count) for count in counts})
        if not as_json:
            print_record(reports[-1], as_json)
    if as_json:
        print_json(reports)


@contextmanager
def progress(what: str) -> Iterator[tuple[Progress, TaskID]]:
    """A bar on standard error, where somebody looks."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        yield bar, bar.add_task(what, total=None)
