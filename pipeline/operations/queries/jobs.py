"""Read the jobs table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from models import Job
from pipeline.operations.queries.filters import Filters, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, count_up_to, paginate

STATES = ("ready", "running", "dead")
COLUMNS = (
    Job.id,
    Job.kind,
    Job.subject,
    Job.state,
    Job.attempts,
    Job.run_at,
    Job.last_error,
    Job.created_at,
)


def list_jobs(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return jobs, newest first. Filters: state, kind."""
    statement = select(*COLUMNS).where(*equal(Job, ("state", "kind"), filters))
    return paginate(connection, statement, [Job.id], limit=limit, cursor=cursor)


def count_jobs(connection: Connection, filters: Filters) -> int:
    """Return how many jobs match, counted up to MAX_COUNTED."""
    return count_up_to(connection, select(Job.id).where(*equal(Job, ("state", "kind"), filters)))


def get_job(connection: Connection, job_id: UUID) -> Mapping[str, Any]:
    """Return one job. Raises NotFound, also for a job that succeeded: it is deleted."""
    row = connection.execute(select(*COLUMNS).where(Job.id == job_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no job {job_id} is known; a job that succeeded is deleted")
    return dict(row)


def matching_ids(connection: Connection, filters: Filters) -> Sequence[UUID]:
    """Return the ids of all jobs that match `filters`, oldest first."""
    statement = select(Job.id).where(*equal(Job, ("state", "kind"), filters))
    return connection.scalars(statement.order_by(Job.id)).all()
