"""The sweep: a thread of the worker that dispatches due jobs whose message was lost, and stores the worker's heartbeat.

In an embedded service it is the only dispatcher: five times a second, and on SQLite soon after each commit of another
process. If the broker is unavailable it has the jobs run in this process.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from pipeline.db.commits import CommitCounter
from pipeline.db.dialect import limit_lock_waits
from pipeline.db.errors import safe_message
from pipeline.db.ids import utcnow
from pipeline.db.months import make_months
from pipeline.follow_ups import pauses, recording
from pipeline.follow_ups.activation import activations
from pipeline.jobs import queue
from pipeline.operations.health import HEARTBEAT_SECONDS, delete_stale_heartbeats, record_heartbeat
from pipeline.retention.schedule import enqueue_due_purge
from pipeline.service import Service
from pipeline.sync import reconcile
from workers.direct import DirectRunner
from workers.dispatcher import JobDispatcher

log = logging.getLogger(__name__)

COMMIT_POLL_SECONDS = 0.01
"""How often an embedded service on SQLite looks whether anything was committed."""
REDISPATCH_SECONDS = 2.0
"""A dispatched job that still waits is not dispatched again before."""
ABANDONED_AFTER = timedelta(days=1)
"""Age of an incomplete file whose writer is certainly gone."""


class Sweep(threading.Thread):
    """Sweeps every SWEEP_SECONDS until it is stopped."""

    def __init__(
        self,
        service: Service,
        dispatcher: JobDispatcher,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="sweep", daemon=True)
        self.service = service
        self.dispatcher = dispatcher
        self.worker_name = f"{socket.gethostname()}:{os.getpid()}"
        self._clock = clock
        self._stopped = threading.Event()
        self._fork_lock = threading.Lock()
        self._next_heartbeat = 0.0
        self._is_first = True
        self._recently_dispatched: dict[UUID, float] = {}
        # SQLite: no fork inside a transaction, see start(). PostgreSQL's connections of a parent are not used by its child.
        is_sqlite = service.engine.dialect.name == "sqlite"
        self._commits = CommitCounter(service.engine, enabled=is_sqlite and service.settings.embedded)
        self._direct = DirectRunner(
            service,
            is_needed=lambda: self.dispatcher.is_unavailable,
            guard=(lambda: self._fork_lock) if is_sqlite else nullcontext,
        )

    def start(self) -> None:
        """Start the thread, and prevent forks during a sweep.

        A child forked inside an SQLite transaction inherits the file lock and deadlocks.
        """
        os.register_at_fork(
            before=self._fork_lock.acquire,
            after_in_parent=self._fork_lock.release,
            after_in_child=self._fork_lock.release,
        )
        super().start()

    def run(self) -> None:
        """Sweep until stopped. A sweep that fails is logged, and the next one is tried in time."""
        while not self._stopped.is_set():
            commits = self._commits.count()
            try:
                with self._fork_lock:
                    self.sweep()
            except Exception as fault:
                log.warning("sweep failed", extra={"error": safe_message(fault)})
            self._wait(commits)

    def _wait(self, commits: int | None) -> None:
        """Wait SWEEP_SECONDS, or until another connection has committed after `commits`, where that can be seen."""
        seconds = self.service.settings.sweep_seconds
        until = time.monotonic() + seconds
        step = seconds if commits is None else COMMIT_POLL_SECONDS
        while not self._stopped.wait(step) and time.monotonic() < until:
            if self._commits.count() != commits:
                return

    def stop(self) -> None:
        """End the thread after the current sweep."""
        self._stopped.set()
        self._direct.stop()

    def sweep(self) -> None:
        """Dispatch due jobs; every HEARTBEAT_SECONDS do the rest. Dispatching comes first, so that no failure prevents it."""
        self.dispatch_due()
        if self._clock() >= self._next_heartbeat:
            self._next_heartbeat = self._clock() + HEARTBEAT_SECONDS
            with self.service.engine.begin() as connection:
                record_heartbeat(connection, self.worker_name, os.getpid())
            with self.service.engine.begin() as connection:
                reconcile.enqueue_due_runs(connection, self.service)
                enqueue_due_purge(connection, self.service)
            self._make_months()
            activations(self.service)
            with self.service.engine.begin() as connection:
                recording.release_limited(connection, self.service)
            self.replay_missed()

    def dispatch_due(self) -> None:
        """Dispatch no more of the due jobs than this worker can take; other workers dispatch their own."""
        limit = 2 * self.service.settings.worker_concurrency
        with self.service.reader.begin() as connection:
            due = queue.due(connection, limit, self.service.paused_queues.runnable())
        now = self._clock()
        self._recently_dispatched = {
            job_id: at for job_id, at in self._recently_dispatched.items() if now < at + REDISPATCH_SECONDS
        }
        new = [job_id for job_id in due if job_id not in self._recently_dispatched]
        if new and self.dispatcher.publish(new):
            self._recently_dispatched |= dict.fromkeys(new, now)
        if self.dispatcher.is_unavailable and self.dispatcher.fault() is not None:
            self._direct.ensure_running()

    def replay_missed(self) -> None:
        """Release what waited for a setting, once at the start; plan what files missed that are valid now.

        Any process may have missed a task, also one that had not loaded its files yet: the rows say so.
        """
        with self.service.engine.begin() as connection:
            if self._is_first:
                delete_stale_heartbeats(connection)
                recording.release(connection, self.service)
            pauses.replay_missed_of_fixed_files(connection, self.service)
        if self._is_first:
            self._delete_abandoned_files()
        self._is_first = False

    def _make_months(self) -> None:
        """Make the next months of bodies before they begin. Until it succeeds, bodies go into the default partition."""
        try:
            with self.service.engine.begin() as connection:
                limit_lock_waits(connection)
                make_months(connection, utcnow())
        except DBAPIError as fault:
            log.warning("could not make the next months", extra={"error": safe_message(fault)})

    def _delete_abandoned_files(self) -> None:
        """Delete the incomplete files of workers that were killed, once at the start."""
        try:
            self.service.store.delete_abandoned(ABANDONED_AFTER)
        except Exception as fault:  # a store may be unavailable; its files do no harm
            log.warning("could not delete abandoned files", extra={"error": safe_message(fault)})
