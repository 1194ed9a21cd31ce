"""Counts and ages for `/metrics`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select, text

from models import Artifact, Delivery, FollowUp, Job, SyncRun
from pipeline.db.follow_up_states import HELD
from pipeline.jobs import queue
from pipeline.operations.health import last_heartbeat


@dataclass(frozen=True, slots=True)
class WorkCounts:
    """How much work there is, and how old it is."""

    jobs: dict[tuple[str, str], int]
    """(kind, state) → number."""
    deliveries: dict[str, int]
    """Status → number, without processed ones: counting nearly all rows would read the whole table."""
    artifacts: dict[str, int]
    """State → number, without stored ones."""
    follow_ups: dict[str, int]
    """State → number."""
    held: dict[str, int]
    """Reason code → number of held follow-ups."""
    heartbeat_age: float | None
    """Seconds since the last worker heartbeat; None if none was ever recorded."""
    oldest_due_job_age: float | None
    """Seconds that the longest waiting due job has waited; None if none is due."""
    reconcile_age: float | None
    """Seconds since the last complete comparison with Scale's list of tasks began; None if there was none."""


def work_counts(connection: Connection) -> WorkCounts:
    """Return the counts as they are now."""
    beat, now = last_heartbeat(connection)
    due = connection.scalar(select(func.min(Job.run_at)).where(Job.state == "ready", Job.run_at <= now))
    not_processed = (
        select(Delivery.status, func.count())
        .where(text("deliveries.status != 'processed'"), Delivery.dismissed_at.is_(None))
        .group_by(Delivery.status)
    )
    not_stored = (
        select(Artifact.state, func.count())
        .where(text("artifacts.state != 'stored'"))
        .group_by(Artifact.state)
    )
    by_state = select(FollowUp.state, func.count()).group_by(FollowUp.state)
    held = (
        select(FollowUp.reason_code, func.count())
        .where(FollowUp.state == HELD)
        .group_by(FollowUp.reason_code)
    )
    reconciled = connection.scalar(
        select(func.max(SyncRun.started_at)).where(
            SyncRun.kind == "reconcile", SyncRun.finished_at.is_not(None)
        )
    )
    return WorkCounts(
        jobs=queue.counts(connection),
        deliveries=_counts(connection, not_processed),
        artifacts=_counts(connection, not_stored),
        follow_ups=_counts(connection, by_state),
        held=_counts(connection, held),
        heartbeat_age=_age(beat, now),
        oldest_due_job_age=_age(due, now),
        reconcile_age=_age(reconciled, now),
    )


def _counts(connection: Connection, statement: Select[Any, int]) -> dict[str, int]:
    """Return value → number; a null counts as the value "none"."""
    return {value or "none": number for value, number in connection.execute(statement)}


def _age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else max(0.0, (now - since).total_seconds())
