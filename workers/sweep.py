"""The sweep: a thread of the worker that rings for due jobs whose dispatcher was lost, and says that the worker is alive.

Without a broker it is the only dispatcher, five times a second.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from uuid import UUID

from pipeline.db.state import set_state
from pipeline.follow_ups import pauses, recording
from pipeline.jobs import queue
from pipeline.operations.health import HEARTBEAT, HEARTBEAT_SECONDS, forget_the_silent
from pipeline.service import Service
from pipeline.sync import reconcile
from workers.dispatcher import JobDispatcher

log = logging.getLogger(__name__)

REDISPATCH_SECONDS = 2.0
"""A job that was rung for and is still waiting is not rung for again before."""


class Sweep(threading.Thread):
    """Sweeps every SWEEP_SECONDS until stopped."""

    def __init__(self, service: Service, dispatcher: JobDispatcher) -> None:
        super().__init__(name="sweep", daemon=True)
        self.service = service
        self.dispatcher = dispatcher
        self.stopped = threading.Event()
        self.fork_lock = threading.Lock()
        self.worker_name = f"{socket.gethostname()}:{os.getpid()}"
        self._next_beat = 0.0
        self._broken: set[str] | None = None
        self._recently_dispatched: dict[UUID, float] = {}

    def start(self) -> None:
        """Forks of this process wait from now on until no round is under way: a child that is born within a transaction
        on SQLite takes its lock for one of its own, and never gets another."""
        os.register_at_fork(
            before=self.fork_lock.acquire,
            after_in_parent=self.fork_lock.release,
            after_in_child=self.fork_lock.release,
        )
        super().start()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                with self.fork_lock:
                    self.sweep()
            except Exception as fault:
                log.warning("a sweep failed, the next one tries again: %s", fault)
            self.stopped.wait(self.service.settings.sweep_seconds)

    def stop(self) -> None:
        self.stopped.set()

    def sweep(self) -> None:
        """One round: bells, and now and then what else is to be done. The bells come first: nothing may silence them."""
        self.dispatch_due()
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
            with self.service.engine.begin() as connection:
                set_state(connection, f"{HEARTBEAT}{self.worker_name}", {"pid": os.getpid()})
            with self.service.engine.begin() as connection:
                reconcile.enqueue_due_runs(connection, self.service)
            self.replay_missed()

    def dispatch_due(self) -> None:
        """Ring for no more of the due jobs than this worker can take; every other one rings for itself."""
        with self.service.reader.begin() as connection:
            due = queue.due(
                connection,
                2 * self.service.settings.worker_concurrency,
                self.service.paused_queues.runnable(),
            )
        self._recently_dispatched = {
            job_id: at
            for job_id, at in self._recently_dispatched.items()
            if time.monotonic() < at + REDISPATCH_SECONDS
        }
        if new := [job_id for job_id in due if job_id not in self._recently_dispatched]:
            self.dispatcher.publish(new)
            self._recently_dispatched |= dict.fromkeys(new, time.monotonic())

    def replay_missed(self) -> None:
        """What waited for a setting, at the start; for a workflow file, whenever one was mended."""
        broken = pauses.broken_files(self.service)
        if broken == self._broken:
            return
        with self.service.engine.begin() as connection:
            if self._broken is None:
                forget_the_silent(connection)
                recording.release(connection, self.service)
            pauses.replay_missed_of_fixed_files(connection, self.service)
        self._broken = broken
