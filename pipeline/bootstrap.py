"""Build the service of one process from its settings."""

from __future__ import annotations

import ctypes
from pathlib import Path

from sqlalchemy import Engine

from config import Settings
from pipeline import workflow_files
from pipeline.artifacts.store import ArtifactStore
from pipeline.db.engine import connect, read_only
from pipeline.events import subscriptions
from pipeline.jobs import workers
from pipeline.metrics import observe_scale_request
from pipeline.service import Service
from pipeline.timed_cache import TimedCache
from pipeline.workflow_files import WorkflowFiles
from scale.client import Client
from scale.environments import ENVIRONMENTS

LARGE_BLOCK_BYTES = 1024 * 1024
_M_MMAP_THRESHOLD = -3  # malloc.h of glibc


def build_service(
    settings: Settings,
    *,
    pool_size: int = 5,
    engine: Engine | None = None,
    cache_seconds: float | None = None,
) -> Service:
    """Return the service for `settings`. Connections are opened when they are first used.

    `engine` replaces the one that `settings.database_url` names; `cache_seconds` replaces the lifetimes of the caches of
    workflow files and subscriptions.
    """
    configure_malloc()
    engine = engine or connect(settings, pool_size=pool_size)
    reader = read_only(engine)
    keys = {environment: settings.scale_key(environment) for environment in ENVIRONMENTS}
    files_seconds = workflow_files.CACHE_SECONDS if cache_seconds is None else cache_seconds
    subscription_seconds = subscriptions.CACHE_SECONDS if cache_seconds is None else cache_seconds
    return Service(
        settings=settings,
        engine=engine,
        reader=reader,
        store=ArtifactStore(settings.artifact_store),
        scale_clients={
            name: Client(settings.scale_api_url, key, observe=observe_scale_request)
            for name, key in keys.items()
            if key
        },
        workflow_files=WorkflowFiles(
            [Path(folder) for folder in settings.workflow_folders],
            files_seconds,
            settings.python_steps,
            Path(settings.prices_file),
            Path(settings.limits_file),
        ),
        worker_count_cache=TimedCache(lambda: workers.count_workers(reader), workers.CACHE_SECONDS),
        subscription_cache=TimedCache(lambda: subscriptions.read_subscriptions(reader), subscription_seconds),
    )


def configure_malloc() -> None:
    """Make glibc map each block of LARGE_BLOCK_BYTES or more by itself, so that it is unmapped when it is freed.

    By default glibc raises that threshold to the largest block freed so far and puts later blocks into its heap, where
    small blocks behind them keep them: each large body would enlarge the process for good. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
