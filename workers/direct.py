"""Run due jobs in threads of the worker's main process while the broker is unavailable.

Celery's processes wait for messages; without a broker none arrives. The rows are the queue of record, so the main process
claims them itself until messages can be sent again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from pipeline.db.errors import safe_message
from pipeline.service import Service
from workers.runner import run_due_jobs

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""Pause of a thread that found no due job."""


class DirectRunner:
    """Threads that run due jobs for as long as `is_needed` is true, at most WORKER_CONCURRENCY of them."""

    def __init__(
        self,
        service: Service,
        is_needed: Callable[[], bool],
        guard: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """Store the parts. `guard` gives a context that is entered around each run of jobs."""
        self._service = service
        self._is_needed = is_needed
        self._guard = guard
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()

    def ensure_running(self) -> None:
        """Start the threads that do not run."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        missing = self._service.settings.worker_concurrency - len(self._threads)
        if missing > 0 and not self._threads:
            log.warning(
                "running jobs in the main process until the broker answers", extra={"threads": missing}
            )
        for _ in range(missing):
            thread = threading.Thread(target=self._run, name="direct runner", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End the threads after their current jobs."""
        self._stopped.set()

    def _run(self) -> None:
        while self._is_needed() and not self._stopped.is_set():
            try:
                with self._guard():
                    left = run_due_jobs(self._service)
            except Exception as fault:  # the database is unavailable as well
                log.warning("could not run due jobs", extra={"error": safe_message(fault)})
                left = []
            if not left:
                self._stopped.wait(IDLE_SECONDS)
