"""`weighbridge jobs …`: rows of work that are ready, running or dead."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import click

from app.api.jobs import KINDS, Job
from app.commands.bulk import act_on_each, print_outcome
from app.commands.bulk import reason as reason_option
from app.commands.group import Group, dispatch_now
from app.commands.output import as_json, filters_from, limit, print_rows
from app.extensions import service
from pipeline.operations import dismissals, retries
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
    with service().engine.begin() as connection:
        selected = list(job_ids) or queries.matching_ids(connection, filters_from(state="dead", kind=kind))
        retried, errors = act_on_each(connection, selected, retries.retry_job)
    dispatch_now(list(retried))
    print_outcome(list(retried), errors, "jobs", as_json, key="retried")


@jobs.command("dismiss")
@click.argument("job_ids", type=click.UUID, nargs=-1)
@click.option("--dead", is_flag=True, help="Select all dead jobs.")
@click.option("--kind", type=click.Choice(KINDS), help="With --dead: only jobs of this kind.")
@reason_option
@as_json
def dismiss_jobs(job_ids: tuple[UUID, ...], dead: bool, kind: str | None, reason: str, as_json: bool) -> None:
    """Dismiss dead jobs: they are deleted, and the audit log keeps what they were."""
    if bool(job_ids) == dead:
        raise click.UsageError("Pass job ids or --dead.")
    with service().engine.begin() as connection:
        selected = list(job_ids) or queries.matching_ids(connection, filters_from(state="dead", kind=kind))
        dismissed, errors = act_on_each(connection, selected, partial(dismissals.dismiss_job, reason=reason))
    print_outcome(list(dismissed), errors, "jobs", as_json, key="dismissed")
