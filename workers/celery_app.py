"""The module that `celery -A workers.celery_app worker` loads: the Celery app, its single task, and the sweep."""

from __future__ import annotations

from workers.process import settings  # first: see its docstring

# isort: split
import gc
import logging
import os
import time
import warnings
from contextlib import suppress
from functools import cache
from typing import Any
from uuid import UUID

import billiard.pool
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from celery.signals import celeryd_after_setup, setup_logging, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from config.deployment import deployment_problems
from config.logging import set_up_logging
from config.telemetry import set_up_telemetry
from pipeline.bootstrap import build_service
from pipeline.db.revisions import is_older_than_code
from pipeline.metrics import serve_metrics
from pipeline.service import Service
from workers.consumer import Consumer, is_ours_to_say
from workers.dispatcher import JobDispatcher, make_celery
from workers.messages import RUN_TASK
from workers.runner import run_due_jobs
from workers.sweep import Sweep

log = logging.getLogger(__name__)
# Celery warns root about pickled messages. Ours are JSON, and in a container every process is root.
warnings.filterwarnings("ignore", category=SecurityWarning)
# Celery announces with each lost connection that a default of ours will change.
warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
set_up_telemetry(settings, "worker")
app = make_celery(settings, timeout=3.0)
dispatcher = JobDispatcher(settings, app)
Consumer.dispatcher = dispatcher


# At its end a process of the pool waits 30 s until all its results were read. Celery reads none of a message that it has forgotten,
# as it does when it loses the broker, and platforms kill after 30 s. Our results are in the database.
billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 10  # times 0.1 s

MAIN_PROCESS = os.getpid()
CHILD_CONNECTIONS = 3
"""Of each process of the pool: its threads mostly wait for Scale, and small database plans allow 20 connections in all."""

MIGRATION_POLL_SECONDS = 1.0


@cache
def _service_of_process(pid: int) -> Service:
    is_main = pid == MAIN_PROCESS
    return build_service(
        settings, pool_size=settings.worker_concurrency + 4 if is_main else CHILD_CONNECTIONS
    )


def service() -> Service:
    """Return the service of this process: connections opened before a fork must not be shared."""
    return _service_of_process(os.getpid())


@app.task(name=RUN_TASK)
def run(job_id: str) -> None:
    """Run one job and whatever is due after it, then dispatch the rest."""
    dispatcher.publish(run_due_jobs(service(), UUID(job_id), dispatcher.publish))


@setup_logging.connect
def _set_up_logging(**_: Any) -> None:
    set_up_logging(settings)
    logging.getLogger("celery.worker.consumer.consumer").addFilter(is_ours_to_say)


@celeryd_after_setup.connect
def _start_sweeping(**_: Any) -> None:
    """Start the sweep before Celery connects: it must not wait for a broker that is unavailable."""
    for name, why in deployment_problems(settings).items():
        log.warning("setting does not fit this deployment", extra={"setting": name, "problem": why})
    if settings.worker_metrics_port:
        try:
            serve_metrics(settings.worker_metrics_port)
        except OSError as error:
            raise SystemExit(f"Weighbridge cannot start:\nWORKER_METRICS_PORT: {error.strerror}") from None
    _wait_for_migration()
    sweep = Sweep(service(), dispatcher)
    worker_shutting_down.connect(lambda **_: sweep.stop(), weak=False)
    sweep.start()


def _wait_for_migration() -> None:
    """Wait while the database has an older schema: jobs that fail because of it would use up their attempts."""
    with suppress(SQLAlchemyError):  # the sweep says so
        while _needs_migration():
            log.warning("worker waits until the database is migrated: weighbridge db upgrade")
            time.sleep(MIGRATION_POLL_SECONDS)


def _needs_migration() -> bool:
    with service().reader.begin() as connection:
        return is_older_than_code(connection)


# What was imported stays: no collection has to look at it, and no fork copies it for that.
gc.freeze()
gc.enable()
