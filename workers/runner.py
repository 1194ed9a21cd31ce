"""One function a kind of job, each a few lines into pipeline/, and the one place that maps an error to what becomes of
the job."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from pipeline.artifacts.jobs import fetch_artifact
from pipeline.db.errors import safe_message
from pipeline.events import outbox
from pipeline.follow_ups import joins, plan_task, task_creation
from pipeline.jobs import queue
from pipeline.jobs.queue import Job, LeaseLost, RetryLater
from pipeline.receive import replay
from pipeline.service import Service
from pipeline.sync import reconcile

log = logging.getLogger(__name__)

MAX_RUN_SECONDS = 5.0
"""How long one message keeps its worker: after that a shutdown can come between two jobs."""
UNKNOWN_KIND_RETRY_SECONDS = 60.0

HANDLERS: dict[str, Callable[[Service, Job], int | None]] = {
    queue.PARSE: replay.parse_delivery,
    queue.COMPLETE: replay.complete_task,
    queue.FETCH: fetch_artifact,
    queue.PLAN: plan_task.plan_task,
    queue.CREATE: task_creation.create_task,
    queue.CANCEL: task_creation.cancel_task,
    queue.JOIN: joins.evaluate_join,
    queue.DEADLINE: joins.evaluate_join,
    queue.NOTIFY: outbox.deliver_notification,
    queue.CHECK_RUN: outbox.publish_run_finished,
    queue.RECONCILE: reconcile.run_job,
}


def run_due_jobs(
    service: Service, job_id: UUID | None = None, dispatch: Callable[[Iterable[UUID]], None] = lambda _: None
) -> list[UUID]:
    """Run the job that was rung for, then whatever is due, for a while; returns due jobs that are left to ring for.

    A job that has asked for many others rings for them at once, so that they need not all wait for this worker.
    """
    until = time.monotonic() + MAX_RUN_SECONDS
    lease = service.settings.lease_seconds
    job = job_id and queue.claim(service.engine, lease, job_id=job_id)
    job = job or queue.claim(service.engine, lease, queues=service.paused_queues.runnable())
    while job is not None:
        if run_job(service, job) > 1 and (others := service.settings.worker_concurrency - 1):
            with service.reader.begin() as connection:
                dispatch(queue.due(connection, others, service.paused_queues.runnable()))
        if time.monotonic() > until:
            with service.reader.begin() as connection:
                return queue.due(connection, 1, service.paused_queues.runnable())
        job = queue.claim(service.engine, lease, queues=service.paused_queues.runnable())
    return []


def run_job(service: Service, job: Job) -> int:
    """Run one claimed job; how many others it has asked for, as far as it tells.

    What it raises decides: wait in order, back off, or leave it to the new owner.
    """
    try:
        if job.kind not in HANDLERS:
            # A newer version has asked for it, which runs beside this one or was rolled back.
            raise RetryLater(f"this version knows no jobs of the kind {job.kind}", UNKNOWN_KIND_RETRY_SECONDS)
        return HANDLERS[job.kind](service, job) or 0
    except LeaseLost:
        log.warning("job %s:%s was taken over by another worker", job.kind, job.subject)
    except RetryLater as wait:
        service.paused_queues.pause(job.queue, wait.delay)
        _postpone(service, job, str(wait), delay=wait.delay, count_attempt=False)
    except Exception as failure:
        why = safe_message(failure)
        unforeseen = not isinstance(failure, SQLAlchemyError)  # whose traceback repeats values
        log.warning(
            "job %s:%s failed, attempt %d: %s", job.kind, job.subject, job.attempts, why, exc_info=unforeseen
        )
        _postpone(service, job, why[:1000])
    return 0


def _postpone(
    service: Service, job: Job, why: str, *, delay: float | None = None, count_attempt: bool = True
) -> None:
    try:
        with service.engine.begin() as connection:
            queue.reschedule(connection, job, why, delay=delay, count_attempt=count_attempt)
    except LeaseLost:
        pass
    except Exception:  # the database is away: the lease runs out and the sweep finds the job
        log.warning(
            "job %s:%s could not be postponed; its lease will run out", job.kind, job.subject, exc_info=True
        )
