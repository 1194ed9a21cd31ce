"""Counts and ages for `/metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, text

from models import Delivery, FollowUp, Job
from pipeline.jobs import queue
from pipeline.operations.health import last_heartbeat


@dataclass(frozen=True, slots=True)
class WorkCounts:
    """How much work there is, and how old it is."""

    jobs: dict[tuple[str, str], int]
    """(kind, state) → number."""
    deliveries: dict[str, int]
    """Status → number, without processed ones: counting nearly all rows would read the whole table at each scrape."""
    follow_ups: dict[str, int]
    """State → number."""
    heartbeat_age: float | None
    """Seconds since the last worker heartbeat; None if none was ever recorded."""
    oldest_due_job_age: float | None
    """Seconds that the longest waiting due job has waited; None if none is due."""


def work_counts(connection: Connection) -> WorkCounts:
    """Return the counts for one scrape."""
    beat, now = last_heartbeat(connection)
    due = connection.scalar(select(func.min(Job.run_at)).where(Job.state == "ready", Job.run_at <= now))
    not_processed = (
        select(Delivery.status, func.count())
        .where(text("deliveries.status != 'processed'"), Delivery.dismissed_at.is_(None))
        .group_by(Delivery.status)
    )
    by_state = select(FollowUp.state, func.count()).group_by(FollowUp.state)
    return WorkCounts(
        jobs=queue.counts(connection),
        deliveries=dict(connection.execute(not_processed).tuples().all()),
        follow_ups=dict(connection.execute(by_state).tuples().all()),
        heartbeat_age=_age(beat, now),
        oldest_due_job_age=_age(due, now),
    )


def _age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())
