"""Run claimed jobs, and map what a job raises to its consequence: retry later, back off, or leave it to its new owner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from pipeline.db.errors import safe_message
from pipeline.jobs import queue, queues
from pipeline.jobs.queue import Job, LeaseLost, RetryLater
from pipeline.metrics import JOB_SECONDS, Outcome, measure
from pipeline.service import Service
from workers.handlers import HANDLERS

log = logging.getLogger(__name__)

WITHOUT_BOUND = tuple(name for name in queues.QUEUES if name not in queues.BOUNDED)
"""Queues whose jobs may occupy every worker."""
MAX_RUN_SECONDS = 5.0
"""How long one message occupies a worker process: afterwards a shutdown can come between two jobs."""
LOOK_AGAIN_SECONDS = 0.05
"""How often a process whose threads wait for Scale looks for a due job that no message announced to it."""
UNKNOWN_KIND_RETRY_SECONDS = 60.0
MAX_ERROR_LENGTH = 1000


def run_due_jobs(
    service: Service,
    job_id: UUID | None = None,
    dispatch: Callable[[Iterable[UUID]], object] = lambda _: None,
) -> list[UUID]:
    """Run the job `job_id`, then whatever is due, for MAX_RUN_SECONDS. Return due jobs that are left to dispatch.

    A job may lease the one that it enqueues to this worker, which runs it next. After a job that enqueued several others,
    `dispatch` is called at once, so that other workers share them. Tasks are created by other threads, because a creation
    mostly waits for Scale; the first of an environment shows that its key works.
    """
    deadline = time.monotonic() + MAX_RUN_SECONDS
    lease = service.settings.lease_seconds
    creations: set[Future[int | Job]] = set()
    most = service.settings.creation_concurrency
    job = job_id and queue.claim(service.engine, lease, job_id=job_id, queues=WITHOUT_BOUND)
    job = job or next_job(service)
    while job is not None:
        creations = {creation for creation in creations if not creation.done()}
        if service.creates_in_threads(job.queue):
            creations.add(service.creation_threads.submit(run_job, service, job))
            if len(creations) == most:
                creations = wait(creations, return_when=FIRST_COMPLETED).not_done
        elif isinstance(enqueued := run_job(service, replace(job, goes_on=len(creations) < most - 1)), Job):
            job = enqueued
            continue
        elif enqueued > 1 and (others := service.settings.worker_concurrency - 1):
            dispatch(_due(service, others))
        if time.monotonic() > deadline:
            wait(creations)
            _run_one_of_each_queue(service)
            return _due(service, 1)
        if job.is_last_due:
            creations = wait(creations, LOOK_AGAIN_SECONDS, FIRST_COMPLETED).not_done
        job = next_job(service, after=job, has_free_thread=len(creations) < most - 1)
        while job is None and creations:
            creations = wait(creations, LOOK_AGAIN_SECONDS, FIRST_COMPLETED).not_done
            job = next_job(service)
    return []


def next_job(service: Service, after: Job | None = None, *, has_free_thread: bool = False) -> Job | None:
    """Claim the next job of the queue with the highest priority. Large bodies and fetches are claimed when nothing else is due.

    Two exceptions keep the other queues from starving: `after` a job of the default queue a creation is claimed first, if it can
    be handed to a thread (`has_free_thread`), and after a creation a fetch.
    """
    names = WITHOUT_BOUND
    if after is not None and after.queue in queues.CREATION:
        if after.fetch_is_due and (fetch := _claim_bounded(service, [queues.FETCH])) is not None:
            return fetch
    elif after is not None and after.queue == queues.DEFAULT and has_free_thread:
        names = tuple(sorted(names, key=service.creates_in_threads, reverse=True))
    return _claim(service, names) or _claim_bounded(service, queue.due_bounded(service.engine))


def _run_one_of_each_queue(service: Service) -> None:
    """Run one job of each queue but the default one, so that none starves while the default queue is never empty."""
    for name in (*queues.BOUNDED, *queues.CREATION):
        claimed = (_claim_bounded if name in queues.BOUNDED else _claim)(service, [name])
        if claimed is not None:
            run_job(service, claimed)


def _claim(service: Service, names: Iterable[str]) -> Job | None:
    unpaused = service.paused_queues.runnable()
    runnable = [name for name in names if name in unpaused]
    return queue.claim(service.engine, service.settings.lease_seconds, queues=runnable) if runnable else None


def _claim_bounded(service: Service, names: Iterable[str]) -> Job | None:
    lease, most = service.settings.lease_seconds, max_running(service)
    claims = (queue.claim_bounded(service.engine, lease, name, most) for name in names)
    return next(filter(None, claims), None)


def max_running(service: Service) -> int:
    """Return how many jobs of one bounded queue may run at the same time: three quarters of the worker places, at least one."""
    places = service.worker_count * service.settings.worker_concurrency
    return max(1, places - max(1, places // 4))


def _due(service: Service, limit: int) -> list[UUID]:
    with service.reader.begin() as connection:
        return queue.due(connection, limit, service.paused_queues.runnable())


def run_job(service: Service, job: Job) -> int | Job:
    """Run one claimed job. Return how many jobs it enqueued, as far as its handler reports it, or the one that it has leased."""
    kind = job.kind if job.kind in HANDLERS else "unknown"
    with measure(JOB_SECONDS, kind, outcome="finished") as outcome:
        return _run(service, job, outcome)


def _run(service: Service, job: Job, outcome: Outcome) -> int | Job:
    try:
        enqueued = _handle(service, job)
        log.debug("job finished", extra=job.log_fields)
        return enqueued
    except LeaseLost:
        outcome.label = "lease_lost"
        log.warning("lease lost to another worker", extra=job.log_fields)
    except RetryLater as later:
        outcome.label = "postponed"
        service.paused_queues.pause(job.queue, later.delay)
        service.accepting.discard(job.queue)
        _reschedule(service, job, str(later), delay=later.delay, count_attempt=False)
    except Exception as failure:
        outcome.label = "failed"
        error = safe_message(failure)
        has_traceback = not isinstance(failure, SQLAlchemyError)  # whose traceback repeats row values
        log.warning("job failed", extra={**job.log_fields, "error": error}, exc_info=has_traceback)
        _reschedule(service, job, error[:MAX_ERROR_LENGTH])
    return 0


def _handle(service: Service, job: Job) -> int | Job:
    handler = HANDLERS.get(job.kind)
    if handler is None:  # enqueued by a newer version that runs at the same time or was rolled back
        raise RetryLater(f"this version has no jobs of kind {job.kind}", UNKNOWN_KIND_RETRY_SECONDS)
    return handler(service, job) or 0


def _reschedule(
    service: Service, job: Job, error: str, *, delay: float | None = None, count_attempt: bool = True
) -> None:
    try:
        with service.engine.begin() as connection:
            queue.reschedule(connection, job, error, delay=delay, count_attempt=count_attempt)
    except LeaseLost:
        pass
    except Exception as fault:  # the database is unavailable: the lease expires, and the sweep finds the job
        log.warning(
            "could not reschedule job; its lease will expire",
            extra={**job.log_fields, "error": safe_message(fault)},
        )
