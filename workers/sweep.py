"""The sweep: a thread of the worker that rings for due jobs whose bell was lost, and says that the worker is alive.

Without a broker it is the only bell, five times a second.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

from sqlalchemy import text

from pipeline import jobs
from pipeline.health import HEARTBEAT, HEARTBEAT_SECONDS
from pipeline.service import Service
from pipeline.state import remember
from workers.bell import Bell

log = logging.getLogger(__name__)

ADVISORY_LOCK = 0x57454947  # "WEIG"


class Sweep(threading.Thread):
    """Sweeps every SWEEP_SECONDS until stopped."""

    def __init__(self, service: Service, bell: Bell) -> None:
        super().__init__(name="sweep", daemon=True)
        self.service = service
        self.bell = bell
        self.stopped = threading.Event()
        self.name_of_worker = f"{socket.gethostname()}:{os.getpid()}"
        self._next_beat = 0.0

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                self.sweep()
            except Exception as fault:
                log.warning("a sweep failed, the next one tries again: %s", fault)
            self.stopped.wait(self.service.settings.sweep_seconds)

    def stop(self) -> None:
        self.stopped.set()

    def sweep(self) -> None:
        """One round: the heartbeat, then bells for no more jobs than the workers can take."""
        if time.monotonic() >= self._next_beat:
            with self.service.engine.begin() as connection:
                remember(connection, f"{HEARTBEAT}{self.name_of_worker}", {"pid": os.getpid()})
            self._next_beat = time.monotonic() + HEARTBEAT_SECONDS
        with self.service.reader.begin() as connection:
            if connection.dialect.name == "postgresql" and not connection.scalar(
                text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK}
            ):
                return  # another worker sweeps
            due = jobs.due(connection, 2 * self.service.settings.worker_concurrency)
        if due:
            self.bell.publish(due)
