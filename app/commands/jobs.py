"""`flask jobs …`: work that waits, runs or died."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import click
from sqlalchemy import ColumnElement, select

from app.api.jobs import COLUMNS, STATES, Job
from app.commands.group import Group, actor, dispatch_now, service
from app.commands.output import as_json, fetch_rows, limit, print_rows
from models import Job as Row
from pipeline.access.audit import log_action
from pipeline.jobs.queue import MAX_ATTEMPTS, retry

LISTED = ("id", "kind", "subject", "state", "attempts", "run_at", "last_error")


@click.group(cls=Group)
def jobs() -> None:
    """Work that is to be done. A job that succeeded is gone."""


def chosen(**wanted: str | None) -> Iterator[ColumnElement[bool]]:
    for name, value in wanted.items():
        if value is not None:
            yield getattr(Row, name) == value


@jobs.command("list")
@click.option("--state", type=click.Choice(STATES))
@click.option("--kind", type=click.Choice(tuple(MAX_ATTEMPTS)))
@limit
@as_json
def list_jobs(limit: int, as_json: bool, **wanted: Any) -> None:
    """The newest jobs."""
    rows = fetch_rows(Job, COLUMNS, chosen(**wanted), Row.id.desc(), limit)
    print_rows(rows, LISTED, as_json, "No job is like that.")


@jobs.command("retry")
@click.argument("job_ids", type=click.UUID, nargs=-1)
@click.option("--dead", is_flag=True, help="All that are dead.")
@click.option("--kind", type=click.Choice(tuple(MAX_ATTEMPTS)), help="With --dead: only those of this kind.")
def retry_jobs(job_ids: tuple[UUID, ...], dead: bool, kind: str | None) -> None:
    """Run dead jobs, or such that wait, now and with all their attempts."""
    if bool(job_ids) == dead:
        raise click.UsageError("Name jobs, or say --dead.")
    retried: list[UUID] = []
    with service().engine.begin() as connection:
        found = chosen(state="dead", kind=kind) if dead else iter([Row.id.in_(job_ids)])
        rows = connection.execute(select(Row.id, Row.kind, Row.subject).where(*found)).all()
        for job_id, kind_of_job, subject in rows:
            if retry(connection, job_id):
                log_action(connection, actor(), "job.retry", f"{kind_of_job}:{subject}")
                retried.append(job_id)
    dispatch_now(retried)
    click.echo(f"{len(retried)} run again now.")
    if left := set(job_ids) - set(retried):
        named = ", ".join(map(str, sorted(left)))
        raise click.ClickException(f"These run already, or are gone because they succeeded: {named}")
