"""Kinds of jobs, what each works on, and how often each is attempted.

`jobs.subject` holds the id that the kind names here; `jobs.key` is `<kind>:<subject>` and unique.
"""

from __future__ import annotations

from pipeline.jobs import queues

PARSE = "parse"
"""Parse a delivery that was only stored. Subject: id of the delivery."""
DESCRIBE = "describe"
"""Request a task from Scale that a delivery names without describing it. Subject: task_id."""
FETCH = "fetch"
"""Download and read a result file. Subject: id of the artifact."""
PLAN = "plan"
"""Plan the follow-ups of a task. Subject: task_id."""
CREATE = "create"
"""Create one task at Scale. Subject: unique_id of the follow-up."""
CANCEL = "cancel"
"""Cancel one pending task at Scale. Subject: unique_id of the follow-up."""
JOIN = "join"
"""Evaluate a join after one of its tasks changed. Subject: id of the join."""
DEADLINE = "deadline"
"""Evaluate a join whose deadline has passed. Subject: id of the join."""
NOTIFY = "notify"
"""Deliver a notification. Subject: id of the notification."""
CHECK_RUN = "check_run"
"""Check whether everything that follows from a first task has finished. Subject: a task_id of that run."""
RECONCILE = "reconcile"
"""Compare Scale's list of tasks with the stored ones. Subject: environment."""
BACKFILL = "backfill"
"""Run a workflow over stored results. Subject: id of the backfill."""
EXPORT = "export"
"""Write an export that was requested through the API. Subject: id of the export."""
BULK = "bulk"
"""Decide about all rows that match a filter. Subject: id of the bulk action."""
PURGE = "purge"
"""Purge what the RETAIN_…_DAYS settings do not keep. Subject: `retention`."""

SUBJECT_FIELD = {
    PARSE: "delivery_id",
    DESCRIBE: "task_id",
    FETCH: "artifact_id",
    PLAN: "task_id",
    CREATE: "follow_up",
    CANCEL: "follow_up",
    JOIN: "join_id",
    DEADLINE: "join_id",
    NOTIFY: "notification_id",
    CHECK_RUN: "task_id",
    RECONCILE: "environment",
    BACKFILL: "backfill_id",
    EXPORT: "export_id",
    BULK: "bulk_action_id",
    PURGE: "purge",
}
"""Kind → name of its subject in log lines: the same as in lines about deliveries, tasks and follow-ups."""

QUEUE_OF_KIND = {PARSE: queues.PARSE, FETCH: queues.FETCH, EXPORT: queues.FETCH}
"""Kinds with a bounded queue; creations name the environment's queue, all others wait in the default one."""

MAX_ATTEMPTS = {
    PARSE: 20,
    PLAN: 20,
    DESCRIBE: 40,
    FETCH: 40,
    CREATE: 40,
    CANCEL: 20,
    JOIN: 20,
    DEADLINE: 20,
    NOTIFY: 20,
    CHECK_RUN: 20,
    RECONCILE: 40,
    BACKFILL: 20,
    EXPORT: 20,
    BULK: 20,
    PURGE: 20,
}
"""With the back-off of queue.py 40 attempts take 28 hours, longer than a day's outage of a remote side; 20 take 8 hours."""
DEFAULT_MAX_ATTEMPTS = 20
"""For kinds that only a newer version knows."""
MAX_LOST_LEASES = 3
"""Workers that may vanish in a row while they run one job: it probably kills them, by its memory or by a crash."""


def max_attempts(kind: str) -> int:
    """Return how often a job of this kind is attempted before it is dead."""
    return MAX_ATTEMPTS.get(kind, DEFAULT_MAX_ATTEMPTS)
