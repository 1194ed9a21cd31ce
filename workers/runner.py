"""One function a kind of job, each a few lines into pipeline/, and the one place that maps an error to what becomes of
the job."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from pipeline.artifacts import fetch_file
from pipeline.db.errors import words
from pipeline.events import outbox
from pipeline.follow_ups import joins, plan_task, task_creation
from pipeline.jobs import queue
from pipeline.jobs.queue import Job, LeaseLost, Wait
from pipeline.receive import replay
from pipeline.service import Service
from pipeline.sync import reconcile

log = logging.getLogger(__name__)

CHAIN_SECONDS = 5.0
"""How long one message keeps its worker: after that a shutdown can come between two jobs."""
UNKNOWN_SECONDS = 60.0

KINDS: dict[str, Callable[[Service, Job], int | None]] = {
    queue.PARSE: replay.parse,
    queue.COMPLETE: replay.complete,
    queue.FETCH: fetch_file.fetch_artifact,
    queue.PLAN: plan_task.plan_task,
    queue.CREATE: task_creation.create_task,
    queue.CANCEL: task_creation.cancel_task,
    queue.JOIN: joins.evaluate_join,
    queue.DEADLINE: joins.evaluate_join,
    queue.NOTIFY: outbox.notify,
    queue.RUN: outbox.tell_of_end,
    queue.RECONCILE: reconcile.run_job,
}


def work(
    service: Service, job_id: UUID | None = None, ring: Callable[[Iterable[UUID]], None] = lambda _: None
) -> list[UUID]:
    """Run the job that was rung for, then whatever is due, for a while; returns due jobs that are left to ring for.

    A job that has asked for many others rings for them at once, so that they need not all wait for this worker.
    """
    until = time.monotonic() + CHAIN_SECONDS
    lease = service.settings.lease_seconds
    job = job_id and queue.claim(service.engine, lease, job_id=job_id)
    job = job or queue.claim(service.engine, lease, lanes=service.lanes.open())
    while job is not None:
        if perform(service, job) > 1 and (others := service.settings.worker_concurrency - 1):
            with service.reader.begin() as connection:
                ring(queue.due(connection, others, service.lanes.open()))
        if time.monotonic() > until:
            with service.reader.begin() as connection:
                return queue.due(connection, 1, service.lanes.open())
        job = queue.claim(service.engine, lease, lanes=service.lanes.open())
    return []


def perform(service: Service, job: Job) -> int:
    """Run one claimed job; how many others it has asked for, as far as it tells.

    What it raises decides: wait in order, back off, or leave it to the new owner.
    """
    try:
        if job.kind not in KINDS:
            # A newer version has asked for it, which runs beside this one or was rolled back.
            raise Wait(f"this version knows no jobs of the kind {job.kind}", UNKNOWN_SECONDS)
        return KINDS[job.kind](service, job) or 0
    except LeaseLost:
        log.warning("job %s:%s was taken over by another worker", job.kind, job.subject)
    except Wait as wait:
        service.lanes.close(job.lane, wait.delay)
        _postpone(service, job, str(wait), delay=wait.delay, counts=False)
    except Exception as failure:
        why = words(failure)
        unforeseen = not isinstance(failure, SQLAlchemyError)  # whose traceback repeats values
        log.warning(
            "job %s:%s failed, attempt %d: %s", job.kind, job.subject, job.attempts, why, exc_info=unforeseen
        )
        _postpone(service, job, why[:1000])
    return 0


def _postpone(
    service: Service, job: Job, why: str, *, delay: float | None = None, counts: bool = True
) -> None:
    try:
        with service.engine.begin() as connection:
            queue.postpone(connection, job, why, delay=delay, counts=counts)
    except LeaseLost:
        pass
    except Exception:  # the database is away: the lease runs out and the sweep finds the job
        log.warning(
            "job %s:%s could not be postponed; its lease will run out", job.kind, job.subject, exc_info=True
        )
