"""`weighbridge purge`: forget bodies, files and rows of finished work, by age, project, environment or task."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from app.commands.group import Command, actor
from app.commands.output import as_json, filters_from, print_json
from app.commands.reconcile import progress
from app.commands.timestamps import TIMESTAMP
from app.extensions import service
from pipeline.retention.purge import Count, Progress, expand
from pipeline.retention.purge import purge as run
from pipeline.retention.selection import ARTIFACTS, BODIES, CLASSES, ROWS, Selection
from scale.environments import ENVIRONMENTS

NOUNS = {BODIES: "deliveries", ARTIFACTS: "files", ROWS: "tasks"}


@click.command("purge", cls=Command)
@click.option("--bodies", is_flag=True, help="The bytes of deliveries.")
@click.option("--artifacts", is_flag=True, help="The content of result files.")
@click.option("--rows", is_flag=True, help="What was read from both: annotations, responses, descriptions.")
@click.option(
    "--older-than",
    "before",
    type=TIMESTAMP,
    help="Only what was received and last changed before TIME: 90d, 12w, 2026-01-31.",
)
@click.option("--project", help="Only tasks of this project.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Only this environment.")
@click.option(
    "--task",
    "task_ids",
    metavar="TASK_ID",
    multiple=True,
    help="Only this task; can be given more than once.",
)
@click.option("--run", "runs", is_flag=True, help="With --task: every other task of its run, too.")
@click.option("--force", is_flag=True, help="Members of dataset versions, too; the versions record it.")
@click.option(
    "--privacy",
    is_flag=True,
    help="With --task: everything. Means --bodies --artifacts --rows --run --force.",
)
@click.option("--yes", is_flag=True, help="Purge. Without it the command only counts.")
@as_json
@with_appcontext
def purge(
    bodies: bool,
    artifacts: bool,
    rows: bool,
    task_ids: tuple[str, ...],
    runs: bool,
    force: bool,
    privacy: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Forget what finished tasks hold. Without --yes it only counts.

    Identity, status, digests and counts stay: late callbacks are recognised, and nothing is created twice. Tasks whose run
    goes on are left alone, and so are members of dataset versions without --force. It can be stopped and run again.
    """
    chosen = dict(zip(CLASSES, (bodies, artifacts, rows), strict=True))
    classes = tuple(name for name in CLASSES if chosen[name] or privacy)
    _check(classes, task_ids, filters, needs_task=privacy or runs)
    with service().reader.begin() as connection:
        found = expand(connection, task_ids, runs=runs or privacy)
    selection = Selection(classes, task_ids=found, force=force or privacy, **filters_from(**filters))
    done = _run(selection, dry_run=not yes)
    if as_json:
        print_json({**done.as_json(), "tasks": list(found)})
        return
    for name, count in done.counts.items():
        for line in lines(name, count, dry_run=not yes):
            click.echo(line)
    if not yes:
        click.echo("Nothing was changed. The same command with --yes purges.")


def _check(
    classes: tuple[str, ...],
    task_ids: tuple[str, ...],
    filters: dict[str, datetime | str | None],
    *,
    needs_task: bool,
) -> None:
    """Raise UsageError unless something is chosen: everything of everybody is purged by no slip of the hand."""
    if not classes:
        raise click.UsageError("Choose what to purge: --bodies, --artifacts, --rows.")
    if needs_task and not task_ids:
        raise click.UsageError("--privacy and --run take a --task.")
    if not task_ids and not any(filters.values()):
        raise click.UsageError("Select by --older-than, --project, --environment or --task.")


def _run(selection: Selection, *, dry_run: bool) -> Progress:
    with progress("purge") as (bar, line):
        for done in run(service(), selection, actor(), dry_run=dry_run):
            bar.update(line, completed=sum(count.count for count in done.counts.values()))
    return done


def lines(name: str, count: Count, *, dry_run: bool) -> list[str]:
    """Return what was purged of a class, or would be, and what was left alone."""
    what = f"{count.count:,} {NOUNS[name]}"
    what += (
        f", {count.responses:,} responses, {count.annotations:,} annotations"
        if name == ROWS
        else f", {count.bytes:,} bytes"
    )
    found = [f"{name}: {what} {'would be ' if dry_run else ''}purged."]
    if count.open:
        found.append(f"{name}: {count.open:,} left alone: pending, or something of their run goes on.")
    found += [
        f"{name}: {number:,} left alone: members of {version}. --force purges them."
        for version, number in sorted(count.protected.items())
    ]
    found += [
        f"{name}: {number:,} of these belong to members of {version}, which {'would lose' if dry_run else 'has lost'} them."
        for version, number in sorted(count.damaged.items())
    ]
    return found
