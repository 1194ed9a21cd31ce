"""`weighbridge reconcile` and `weighbridge import`: results that no callback delivered, from Scale or from files."""

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

from app.commands.group import Command, dispatch_now
from app.commands.output import as_json, print_json, print_record, printable
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.extensions import service
from pipeline.jobs.queue import backoff
from pipeline.sync import reconcile as reconciliation
from pipeline.sync.imports import Import, UnreadableImport, import_file
from pipeline.sync.reconcile import ReconcileRun
from scale.client import THROTTLED_SECONDS, Throttled, TransientError
from scale.environments import ENVIRONMENTS

MAX_FAILURES = 8
"""Failures of Scale in a row before the command gives up; the pause doubles after each."""


@click.command("reconcile", cls=Command)
@click.option(
    "--since", type=TIMESTAMP, help=f"Only tasks that changed at or after TIME: {EXAMPLES}. Default: all."
)
@click.option("--project", help="Only tasks of this project.")
@click.option(
    "--environment", type=click.Choice(ENVIRONMENTS), help="Default: each environment with an API key."
)
@click.option("--create", is_flag=True, help="Create the follow-ups of these results. Default: hold them.")
@click.option("--dry-run", is_flag=True, help="Dry run: list differences, change nothing.")
@as_json
@with_appcontext
def reconcile(
    since: datetime | None,
    project: str | None,
    environment: str | None,
    create: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Store results that no callback delivered, from Scale's list.

    Compares Scale's list of tasks with the database.
    An interrupted run continues where it stopped. Follow-ups of these results are held unless --create is passed.
    """
    with_key = [name for name in ENVIRONMENTS if service().client(name) is not None]
    chosen = with_key if environment is None else [environment]
    if not chosen or environment not in (None, *with_key):
        raise click.ClickException(
            "No API key is set: set SCALE_API_KEY for live tasks, SCALE_TEST_API_KEY for test tasks."
        )
    reports = []
    for name in chosen:
        run = reconciliation.begin(service(), name, since=since, project=project)
        if run.position and not as_json:
            click.echo(f"Continuing the {name} run that was interrupted after {run.seen} tasks.")
        with progress(f"{name} tasks") as (bar, line):
            for page in pages_with_retries(run, dry_run=dry_run, create=create):
                run = page
                bar.update(line, completed=run.seen, total=run.total)
                dispatch_now([job_id for one in run.found for job_id in one.jobs])
                for one in run.found if not as_json else ():
                    click.echo(f"{printable(one.task_id)}: {one.why}, {one.receipt or 'not stored'}")
        counts = ("seen", "missing", "stale", "repaired")
        reports.append({"environment": name} | {count: getattr(run, count) for count in counts})
    if as_json:
        print_json(reports)
    else:
        for report in reports:
            print_record(report, as_json)


def pages_with_retries(run: ReconcileRun, *, dry_run: bool, create: bool) -> Iterator[ReconcileRun]:
    """Yield the pages of a run. Waits for rate limits, and retries failures with exponential back-off."""
    failures = 0
    while not run.finished:
        try:
            for page in reconciliation.reconcile(service(), run, dry_run=dry_run, create=create):
                run, failures = page, 0
                yield run
        except (Throttled, TransientError) as fault:
            failures += 1
            if failures == MAX_FAILURES:
                raise
            pause = fault.retry_after or min(THROTTLED_SECONDS, backoff(failures + 1))
            click.echo(f"Scale API error: {fault.message}. Retrying in {pause:.0f} s.", err=True)
            time.sleep(pause)


@click.command("import", cls=Command)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--environment",
    type=click.Choice(ENVIRONMENTS),
    default="live",
    show_default=True,
    help="Environment of objects without is_test.",
)
@click.option(
    "--restart", is_flag=True, help="Start at the beginning of a file whose import was interrupted."
)
@click.option("--create", is_flag=True, help="Create the follow-ups of these results. Default: hold them.")
@click.option("--dry-run", is_flag=True, help="Dry run: count new results, change nothing.")
@as_json
@with_appcontext
def import_files(
    files: tuple[Path, ...], environment: str, restart: bool, create: bool, dry_run: bool, as_json: bool
) -> None:
    """Import task objects from JSON files.

    Takes the dashboard's mass export, single tasks and e-mail callbacks. A file holds one object, a list, or one object a line. Each object is applied like its callback if it is new.
    Follow-ups of these results are held unless --create is passed.
    """
    reports: list[dict[str, Any]] = []
    for path in files:
        size = path.stat().st_size
        state = Import()
        with path.open("rb") as file, progress(path.name) as (bar, line):
            try:
                for state in import_file(
                    service(), file, environment, resume=not restart, dry_run=dry_run, create=create
                ):
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
    """Show a progress bar on standard error if it is a terminal."""
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
