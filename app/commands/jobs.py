"""`weighbridge jobs …`: rows of work that are ready, running or dead."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from app.api.jobs import KINDS, Job
from app.commands.dismiss import dismiss_each, print_dismissed
from app.commands.group import Group, actor, dispatch_now
from app.commands.output import as_json, filters_from, limit, print_json, print_rows
from app.extensions import service
from pipeline.access.audit import log_action
from pipeline.jobs.queue import retry
from pipeline.operations import dismissals
from pipeline.operations.queries import NotFound
from pipeline.operations.queries import jobs as queries

LISTED = ("id", "kind", "subject", "state", "attempts", "run_at", "last_error")


@click.group(cls=Group)
def jobs() -> None:
    """List and retry jobs. A job that succeeded is deleted."""


@jobs.command("list")
@click.option("--state", type=click.Choice(queries.STATES), help="Select by state.")
@click.option("--kind", type=click.Choice(KINDS), help="Select by kind.")
@limit
@as_json
def list_jobs(limit: int, as_json: bool, **options: Any) -> None:
    """List jobs, newest first."""
    with service().reader.begin() as connection:
        page = queries.list_jobs(connection, filters_from(**options), limit=limit)
    print_rows(Job(many=True).dump(page.rows), LISTED, as_json, "No matching jobs.")


@jobs.command("retry")
@click.argument("job_ids", type=click.UUID, nargs=-1)
@click.option("--dead", is_flag=True, help="Select all dead jobs.")
@click.option("--kind", type=click.Choice(KINDS), help="With --dead: only jobs of this kind.")
@as_json
def retry_jobs(job_ids: tuple[UUID, ...], dead: bool, kind: str | None, as_json: bool) -> None:
    """Retry dead or waiting jobs now, with their attempts reset."""
    if bool(job_ids) == dead:
        raise click.UsageError("Pass job ids or --dead.")
    retried: list[UUID] = []
    skipped: list[UUID] = []
    with service().engine.begin() as connection:
        selected = list(job_ids) or queries.matching_ids(connection, filters_from(state="dead", kind=kind))
        for job_id in selected:
            try:
                row = queries.get_job(connection, job_id)
            except NotFound:
                skipped.append(job_id)
                continue
            if retry(connection, job_id):
                log_action(connection, actor(), "job.retry", f"{row['kind']}:{row['subject']}")
                retried.append(job_id)
            else:
                skipped.append(job_id)
    dispatch_now(retried)
    if as_json:
        print_json({"retried": retried, "skipped": skipped})
    else:
        click.echo(f"Retried {len(retried)} jobs.")
    if skipped:
        raise click.ClickException(f"Already running or finished: {', '.join(map(str, skipped))}")


@jobs.command("dismiss")
@click.argument("job_ids", type=click.UUID, nargs=-1)
@click.option("--dead", is_flag=True, help="Select all dead jobs.")
@click.option("--kind", type=click.Choice(KINDS), help="With --dead: only jobs of this kind.")
@click.option("--reason", required=True, help="Why, for the audit log.")
@as_json
def dismiss_jobs(job_ids: tuple[UUID, ...], dead: bool, kind: str | None, reason: str, as_json: bool) -> None:
    """Dismiss dead jobs: they are deleted, and the audit log keeps what they were."""
    if bool(job_ids) == dead:
        raise click.UsageError("Pass job ids or --dead.")
    with service().engine.begin() as connection:
        selected = list(job_ids) or queries.matching_ids(connection, filters_from(state="dead", kind=kind))
        outcome = dismiss_each(connection, selected, dismissals.dismiss_job, reason)
    print_dismissed(outcome, "jobs", as_json)
