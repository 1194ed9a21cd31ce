"""The purge that the RETAIN_…_DAYS settings ask for: once a day, as a job that gives way to other jobs after some pages."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection, select, update

from config import Settings
from models import RetentionRun
from pipeline.db.dialect import insert
from pipeline.db.ids import utcnow
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job
from pipeline.retention.purge import Count, Position, purge
from pipeline.retention.selection import ARTIFACTS, BODIES, ROWS, Selection
from pipeline.service import Service

ACTOR = "weighbridge"
SUBJECT = "retention"
INTERVAL = timedelta(days=1)
PAGES_OF_A_RUN = 20
"""Pages of one run of the job; it continues after other jobs."""


def retention(settings: Settings) -> dict[str, int]:
    """Return class → days for each class that has a limit."""
    days = {
        BODIES: settings.retain_bodies_days,
        ARTIFACTS: settings.retain_artifacts_days,
        ROWS: settings.retain_rows_days,
    }
    return {name: value for name, value in days.items() if value is not None}


def enqueue_due_purge(connection: Connection, service: Service) -> None:
    """Begin the purge of each class a day after the previous one began; one that has not finished goes on."""
    names = retention(service.settings)
    if not names:
        return
    now = utcnow()
    recent = select(RetentionRun.name).where(RetentionRun.started_at > now - INTERVAL)
    due = sorted(set(names) - set(connection.scalars(recent)))
    for name in due:
        begun = {"started_at": now, "finished_at": None, "after": None, "counts": None}
        statement = insert(connection, RetentionRun).values(name=name, **begun)
        connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=begun))
    if due:
        queue.enqueue(connection, kinds.PURGE, [SUBJECT])


def run_purge(service: Service, job: Job) -> None:
    """Run a job of kind `purge`: empty some pages of a class that has not finished, and store how far it has come."""
    days = retention(service.settings)
    columns = RetentionRun.__table__.c
    with service.engine.begin() as connection:
        unfinished = select(*columns).where(columns.finished_at.is_(None), columns.name.in_(days))
        row = connection.execute(unfinished.order_by(columns.name).limit(1)).one_or_none()
        if row is None:
            return queue.finish(connection, job)
    selection = Selection((row.name,), row.started_at - timedelta(days=days[row.name]))
    values: dict[str, Any] = {}
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as check_lease:
        start = None if row.after is None else Position(row.name, row.after)
        counts = None if row.after is None else {row.name: Count(**row.counts)}
        pages = purge(service, selection, ACTOR, dry_run=False, start=start, counts=counts)
        for progress in islice(pages, PAGES_OF_A_RUN):
            check_lease()
            values = {"counts": asdict(progress.counts[row.name])}
            values |= {"after": progress.position.after} if progress.position else {"finished_at": utcnow()}
    with service.engine.begin() as connection:
        connection.execute(update(RetentionRun).where(RetentionRun.name == row.name).values(**values))
        queue.reschedule(connection, job, None, delay=0, count_attempt=False)
