"""What a delivery changes about its task: pure decisions, so that the same deliveries in any order end in the same rows.

Four facts of a task each come from the newest delivery that states them: its status (any delivery with a status), its
description (one with a task object), its latest response (one with a response), and its recall (one that says pending).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from scale.envelope import Callback, TaskObject

MAX_CLOCK_SKEW = timedelta(days=1)
"""How far Scale's clock may be ahead of ours. A later date would make every real delivery that follows look stale."""
CLOCK_WARNING = (
    "a date of the task is more than a day in the future: the time of receipt is used to order this delivery"
)


class OrderKey(NamedTuple):
    """Orders deliveries: newer ones are greater, and receipt decides between equal clocks."""

    clock: datetime
    delivery_id: UUID  # UUIDv7


def clock_of(callback: Callback, received_at: datetime) -> datetime:
    """Return when the event happened: the latest date of the task, or `received_at` without one or if it is implausible."""
    if callback.clock is None or is_implausible(callback, received_at):
        return received_at
    return callback.clock


def is_implausible(callback: Callback, received_at: datetime) -> bool:
    """Return whether the callback's dates are further in the future than clocks differ."""
    return callback.clock is not None and callback.clock > received_at + MAX_CLOCK_SKEW


class Fact(NamedTuple):
    """The two columns of a task that hold the order key of the newest delivery that states a fact."""

    clock: str
    delivery_id: str

    def stored_key(self, task: Mapping[str, Any]) -> OrderKey:
        """Return the key that the task's row holds; the row must hold one."""
        return OrderKey(task[self.clock], task[self.delivery_id])

    def is_newer(self, task: Mapping[str, Any], key: OrderKey) -> bool:
        """Return whether `key` is greater than the stored one."""
        return task[self.clock] is None or key > self.stored_key(task)

    def columns(self, key: OrderKey) -> dict[str, Any]:
        """Return the columns for `key`."""
        return {self.clock: key.clock, self.delivery_id: key.delivery_id}


STATUS = Fact("clock", "clock_delivery_id")
DESCRIPTION = Fact("described_clock", "described_delivery_id")
RECALL = Fact("recalled_clock", "recalled_delivery_id")
LATEST_RESPONSE = Fact("latest_response_clock", "latest_response_delivery_id")


def task_changes(
    task: Mapping[str, Any], callback: Callback, key: OrderKey, version_id: UUID | None
) -> dict[str, Any]:
    """Return the columns of the task that this delivery changes.

    `task` is the stored row (only nulls for a new task); `version_id` is the response version that the delivery carries,
    None without a response.
    """
    changes: dict[str, Any] = {}
    if callback.status is not None and STATUS.is_newer(task, key):
        changes |= {"status": callback.status, **STATUS.columns(key)}
    if callback.task is not None and DESCRIPTION.is_newer(task, key):
        changes |= task_columns(callback.task) | DESCRIPTION.columns(key)
    if callback.event == "recalled":
        if RECALL.is_newer(task, key):
            changes |= RECALL.columns(key)
    elif version_id is not None and LATEST_RESPONSE.is_newer(task, key):
        changes |= {"latest_response_id": version_id, **LATEST_RESPONSE.columns(key)}
    changes["response_id"] = current_response({**task, **changes})
    return {name: value for name, value in changes.items() if task[name] != value}


def current_response(task: Mapping[str, Any]) -> UUID | None:
    """Return the id of the latest version, or None if the task was recalled after it."""
    latest: UUID | None = task["latest_response_id"]
    if latest is None or task[RECALL.clock] is None:
        return latest
    return latest if LATEST_RESPONSE.stored_key(task) > RECALL.stored_key(task) else None


def task_columns(task: TaskObject) -> dict[str, Any]:
    """Return the columns that Scale's task object fills. What it omits is null: tags that were removed are gone.

    `extra` holds every key without a column, and values whose column could not take them.
    """
    columns = {
        "type": task.type,
        "project": task.project,
        "batch": task.batch,
        "unique_id": task.unique_id,
        "instruction": task.instruction,
        "urgency": task.urgency,
        "tags": task.tags,
        "priority": task.priority,
        "metadata": task.metadata,
        "params": task.params,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "completed_at": task.completed_at,
        "review_status": task.review_status,
        "review_comments": task.review_comments,
        "reviewed_at": task.reviewed_at,
        "callback_succeeded": task.callback_succeeded,
    }
    columns["extra"] = {
        name: value
        for name, value in task.raw.items()
        if name not in TYPED_KEYS or (name in columns and columns[name] is None and value is not None)
    } or None
    return columns


TYPED_KEYS = frozenset(
    """task_id type status project batch unique_id instruction urgency tags priority metadata params response
    created_at updated_at completed_at customer_review_status customer_review_comments customer_audited_at
    callback_succeeded callback_completed""".split()  # noqa: SIM905
)
"""Keys of a task object that have a column, or, like `response`, a table of their own."""
