"""Scheduler: one thread finds due work, thread pools execute it. State is in the database, so a restart resumes."""

import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Select, select

from sandbox.engine import lifecycle
from sandbox.engine.delivery import deliver
from sandbox.engine.sandbox import Sandbox
from sandbox.storage import clock
from sandbox.storage.store import Batch, Delivery, Task

ANNOTATOR_THREADS = 2
CALLBACK_THREADS = 16
DUE_BATCH_SIZE = 200
MAX_IDLE_SECONDS = 5.0
ERROR_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


class _Job(NamedTuple):
    """Name a piece of due work: jobs with the same key never run at the same time."""

    key: Hashable
    run: Callable[[], None]
    pool: ThreadPoolExecutor


class Scheduler:
    """Run the due work of a sandbox between `start()` and `stop()`."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Prepare the threads; nothing runs before `start()`."""
        self._sandbox = sandbox
        self._stopping = threading.Event()
        self._in_flight: set[Hashable] = set()
        self._lock = threading.Lock()
        self._annotators = ThreadPoolExecutor(ANNOTATOR_THREADS, "annotator")
        self._callbacks = ThreadPoolExecutor(CALLBACK_THREADS, "callback")
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start looking for due work."""
        self._thread.start()

    def stop(self, grace_seconds: float = 2.0) -> bool:
        """Start nothing new and wait up to `grace_seconds` for running jobs; return whether all of them ended.

        An interrupted job runs again after a restart.
        """
        self._stopping.set()
        self._sandbox.work_available.set()
        self._thread.join()
        for pool in (self._annotators, self._callbacks):
            pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + grace_seconds
        while self._in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self._in_flight

    def _run(self) -> None:
        """Submit due work until stopped, sleeping until more is due or the sandbox reports some."""
        while not self._stopping.is_set():
            self._sandbox.work_available.clear()
            try:
                idle_seconds = self._submit_due()
            except Exception:
                log.exception("scheduler failed; trying again")
                idle_seconds = ERROR_PAUSE_SECONDS
            self._sandbox.work_available.wait(idle_seconds)

    def _submit_due(self) -> float:
        """Submit the work that is due now, and return the seconds until more will be."""
        now = clock.now()
        with self._sandbox.store.read() as session:
            batches = session.execute(_next_due(Batch.finish_at, Batch.number)).all()
            tasks = session.execute(_next_due(Task.complete_at, Task.number)).all()
            reviews = session.execute(_next_due(Task.review_at, Task.number)).all()
            deliveries = session.execute(
                _next_due(Delivery.next_attempt_at, Delivery.number, Delivery.task_id)
            ).all()
        for due_at, number in batches:
            if due_at <= now:
                lifecycle.finish_due_batch(self._sandbox, number)
        for due_at, number in tasks:
            if due_at <= now:
                self._submit(self._annotation(number))
        for due_at, number in reviews:
            if due_at <= now:
                lifecycle.review_due_task(self._sandbox, number)
        for due_at, number, task_id in deliveries:
            if due_at <= now:
                self._submit(self._delivery(number, task_id))
        waiting = [row[0] - now for row in (*batches, *tasks, *reviews, *deliveries) if row[0] > now]
        return min(MAX_IDLE_SECONDS, min(waiting, default=MAX_IDLE_SECONDS * 1000) / 1000)

    def _annotation(self, number: int) -> _Job:
        return _Job(
            ("task", number), partial(lifecycle.annotate_due_task, self._sandbox, number), self._annotators
        )

    def _delivery(self, number: int, task_id: str | None) -> _Job:
        """Return the job of one callback. Callbacks of a task arrive in order, unless a fault says otherwise."""
        key = ("callbacks of", task_id) if task_id else ("callback", number)
        return _Job(key, partial(deliver, self._sandbox, number), self._callbacks)

    def _submit(self, job: _Job) -> None:
        """Submit a job unless one with its key is in flight."""
        with self._lock:
            if job.key in self._in_flight or self._stopping.is_set():
                return
            self._in_flight.add(job.key)
        job.pool.submit(self._execute, job)

    def _execute(self, job: _Job) -> None:
        try:
            if not self._stopping.is_set():
                job.run()
        except Exception:
            log.exception("job failed", extra={"job_key": str(job.key)})
            time.sleep(ERROR_PAUSE_SECONDS)
        finally:
            with self._lock:
                self._in_flight.discard(job.key)
            self._sandbox.work_available.set()


def _next_due(due_at: Any, number: Any, *columns: Any) -> Select[Any]:
    """Select the rows that are due first; rows due at the same time in the order of their creation."""
    return (
        select(due_at, number, *columns)
        .where(due_at.is_not(None))
        .order_by(due_at, number)
        .limit(DUE_BATCH_SIZE)
    )
