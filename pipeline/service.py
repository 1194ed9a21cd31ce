"""What every part of the pipeline works with, made once a process: settings, engine, clients, workflows."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine

from config import Settings
from pipeline.artifacts.store import ArtifactStore
from pipeline.bootstrap import configure_malloc
from pipeline.db.engine import connect, read_only
from pipeline.events.subscriptions import SubscriptionCache, Subscriptions
from pipeline.jobs import queue
from scale.client import Client
from workflows.definition.document import FileProblem
from workflows.definition.loader import load
from workflows.definition.model import InvalidWorkflow, Workflows, has_workflow_for

log = logging.getLogger(__name__)

CACHE_SECONDS = 2.0


@dataclass
class Service:
    """The dependencies of one process. Nothing is opened before it is used."""

    settings: Settings
    engine: Engine
    workflow_files: WorkflowFiles = field(init=False)
    verified: dict[object, float] = field(default_factory=dict)
    """What pipeline/follow_ups/verification.py has found to be true, and until when that is believed."""
    paused_queues: PausedQueues = field(default_factory=lambda: PausedQueues())

    def __post_init__(self) -> None:
        self.workflow_files = WorkflowFiles(Path(self.settings.workflows_dir))

    @classmethod
    def open(cls, settings: Settings, *, pool_size: int = 5) -> Service:
        configure_malloc()
        return cls(settings, connect(settings, pool_size=pool_size))

    @cached_property
    def reader(self) -> Engine:
        """The engine for transactions that only read."""
        return read_only(self.engine)

    @cached_property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.settings.artifact_store)

    @cached_property
    def _clients(self) -> dict[str, Client]:
        keys = {name: self.settings.scale_key(name) for name in ("live", "test")}
        return {name: Client(self.settings.scale_api_url, key) for name, key in keys.items() if key}

    def client(self, environment: str) -> Client | None:
        """The client with the key of `environment`; None without one."""
        return self._clients.get(environment)

    @cached_property
    def _registered(self) -> SubscriptionCache:
        return SubscriptionCache(self.reader)

    @property
    def subscriptions(self) -> Subscriptions:
        """Who wants to hear of events, as of a moment ago."""
        return self._registered.read()

    @property
    def workflows(self) -> Workflows:
        """The workflow files as they are now."""
        return self.workflow_files.read()

    def has_workflow_for(self, task_type: str | None) -> bool:
        """Whether some workflow could want to look at a task of this type."""
        return has_workflow_for(self.workflows, task_type)


class PausedQueues:
    """Which jobs this process takes: while Scale asks to wait, it passes creating by instead of waking each job in vain."""

    MAX_SECONDS = 5.0
    """Seconds until one job looks again: a person may have started creating, or Scale be there again."""

    def __init__(self) -> None:
        self._paused_until: dict[str, float] = {}

    def pause(self, queue: str, seconds: float) -> None:
        if queue:
            self._paused_until[queue] = time.monotonic() + min(seconds, self.MAX_SECONDS)

    def runnable(self) -> tuple[str, ...]:
        now = time.monotonic()
        return tuple(queue for queue in queue.QUEUES if self._paused_until.get(queue, 0.0) <= now)


class WorkflowFiles:
    """The loaded workflows, loaded again when a file has changed: an edit needs no restart."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._seen: object = None
        self._looked = 0.0
        self._workflows = Workflows((), ())

    def read(self) -> Workflows:
        if time.monotonic() - self._looked < CACHE_SECONDS:
            return self._workflows
        with self._lock:
            seen = self._standing()
            if seen != self._seen:
                self._workflows = self._load()
                self._seen = seen
                for broken in self._workflows.invalid:
                    for problem in broken.errors:
                        log.error("workflow set aside: %s", problem)
            self._looked = time.monotonic()
        return self._workflows

    def _standing(self) -> list[tuple[str, int, int]]:
        """What changes when a file does."""
        found = []
        for path in sorted(self.directory.glob("*.y*ml")):
            with contextlib.suppress(OSError):  # it went away just now, or is an editor's link to nothing
                status = path.stat()
                found.append((path.name, status.st_mtime_ns, status.st_size))
        return found

    def _load(self) -> Workflows:
        """Receiving must not depend on what stands in the files, nor on our own code that reads them."""
        try:
            return load(self.directory)
        except Exception as failure:
            log.exception("reading the workflow files failed")
            why = FileProblem(
                str(self.directory), 1, "", f"reading it failed: {type(failure).__name__}: {failure}"
            )
            return Workflows((), (InvalidWorkflow(str(self.directory), None, (why,)),))
