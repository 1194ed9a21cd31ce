"""The registry of jobs: one function for each kind, called with the service and the claimed job.

A handler commits its result together with queue.finish(). It returns how many jobs it enqueued, or None if few; if the job
`goes_on`, it may return one that it has leased. It raises RetryLater if the job cannot run yet; every other exception is a failed attempt.
"""

from __future__ import annotations

from collections.abc import Callable

from exports.jobs import run_export
from pipeline.artifacts.jobs import fetch_artifact
from pipeline.events.sending import send_notification
from pipeline.follow_ups.backfill import run_backfill
from pipeline.follow_ups.joins import evaluate_join
from pipeline.follow_ups.plan_task import plan_task
from pipeline.follow_ups.runs import publish_run_finished
from pipeline.follow_ups.task_creation import cancel_task, create_task
from pipeline.jobs import kinds
from pipeline.jobs.queue import Job
from pipeline.operations.bulk_actions import continue_action
from pipeline.receive.replay import describe_task, parse_delivery
from pipeline.retention.schedule import run_purge
from pipeline.service import Service
from pipeline.sync.reconcile import run_job as reconcile

HANDLERS: dict[str, Callable[[Service, Job], int | Job | None]] = {
    kinds.PARSE: parse_delivery,
    kinds.DESCRIBE: describe_task,
    kinds.FETCH: fetch_artifact,
    kinds.PLAN: plan_task,
    kinds.CREATE: create_task,
    kinds.CANCEL: cancel_task,
    kinds.JOIN: evaluate_join,
    kinds.DEADLINE: evaluate_join,
    kinds.NOTIFY: send_notification,
    kinds.CHECK_RUN: publish_run_finished,
    kinds.RECONCILE: reconcile,
    kinds.BACKFILL: run_backfill,
    kinds.EXPORT: run_export,
    kinds.BULK: continue_action,
    kinds.PURGE: run_purge,
}
