"""The parts that the pipeline works with, built once a process by bootstrap.py. No I/O happens here."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from config import Settings
from pipeline.jobs.queues import PausedQueues
from pipeline.timed_cache import TimedCache, Totals
from workflows.definition.model import Workflows, has_workflow_for
from workflows.definition.money import Prices

if TYPE_CHECKING:
    from pipeline.artifacts.store import ArtifactStore
    from pipeline.events.subscriptions import Subscriptions
    from pipeline.workflow_files import WorkflowFiles
    from scale.client import Client


@dataclass
class Service:
    """The dependencies of one process."""

    settings: Settings
    engine: Engine
    reader: Engine
    """The same engine for transactions that only read."""
    store: ArtifactStore
    scale_clients: Mapping[str, Client]
    """A client for each environment that has an API key."""
    workflow_files: WorkflowFiles
    subscription_cache: TimedCache[Subscriptions]
    worker_count_cache: TimedCache[int]
    totals: Totals = field(default_factory=Totals)
    paused_queues: PausedQueues = field(default_factory=PausedQueues)
    activations: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """From when on each step of the workflow files applies: see pipeline/follow_ups/activation.py."""
    recorded_workflows: Workflows | None = None
    """The workflow files whose steps are in `activations`."""
    accepting: set[str] = field(default_factory=set)
    """Environments in which Scale accepted this process's last creation. Elsewhere it creates one task at a time."""
    verified: dict[object, float] = field(default_factory=dict)
    """Sources that Scale has confirmed, and until when that is cached: see pipeline/follow_ups/verification.py."""

    @cached_property
    def creation_threads(self) -> ThreadPoolExecutor:
        """Return the threads that create tasks at Scale. Each keeps its connection to Scale."""
        return ThreadPoolExecutor(self.settings.creation_concurrency, "creation")

    def creates_in_threads(self, environment: str) -> bool:
        """Return whether threads of this process create the tasks of an environment, so that no other job waits for Scale."""
        return environment in self.accepting and self.settings.creation_concurrency > 1

    @property
    def worker_count(self) -> int:
        """Return the number of workers that are alive, cached for some seconds."""
        return self.worker_count_cache.get()

    def client(self, environment: str) -> Client | None:
        """Return the client with the API key of `environment`, or None without one."""
        return self.scale_clients.get(environment)

    @property
    def subscriptions(self) -> Subscriptions:
        """Return the enabled subscriptions, cached for some seconds. Not inside of a transaction: reading them takes a connection
        of its own, and threads that each held one and waited for a second one would wait for each other."""
        return self.subscription_cache.get()

    @property
    def workflows(self) -> Workflows:
        """Return the workflows as the files define them now."""
        return self.workflow_files.read()

    @property
    def prices(self) -> Prices:
        """Return the price list as its file defines it now."""
        return self.workflows.prices

    def has_workflow_for(self, task_type: str | None) -> bool:
        """Return whether some workflow may take a result of this task type."""
        return has_workflow_for(self.workflows, task_type)
