"""What a delivery changes about its task: pure decisions, so that the same deliveries in any order end in the same rows.

Four facts of a task are each told by the newest delivery that speaks of it: its status (a delivery that names one), what
the task is (one with a task object), which response is the latest (one with a response), and whether it was recalled (one
that says pending).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from scale.envelope import Callback, TaskObject

OrderKey = tuple[datetime, UUID]
"""(Scale's clock, the delivery's UUIDv7): newer deliveries are greater; receipt decides between equal clocks."""


def task_changes(
    stored: Mapping[str, Any], callback: Callback, moment: OrderKey, version_id: UUID | None
) -> dict[str, Any]:
    """The columns of the task that this delivery changes.

    `stored` is the task's row as it is (only nulls for a task seen for the first time); `version_id` is the response
    version that the delivery carries, None when it has no response.
    """
    changes: dict[str, Any] = {}

    def newest(fact: str) -> bool:
        known = stored[f"{fact}_clock" if fact else "clock"]
        return known is None or moment > (
            known,
            stored[f"{fact}_delivery_id" if fact else "clock_delivery_id"],
        )

    def remember(fact: str) -> None:
        changes[f"{fact}_clock"], changes[f"{fact}_delivery_id"] = moment

    if callback.status is not None and newest(""):
        changes["clock"], changes["clock_delivery_id"] = moment
        changes["status"] = callback.status
    if callback.task is not None and newest("described"):
        remember("described")
        changes |= task_columns(callback.task)
    if callback.event == "recalled":
        if newest("recalled"):
            remember("recalled")
    elif version_id is not None and newest("latest_response"):
        remember("latest_response")
        changes["latest_response_id"] = version_id
    changes["response_id"] = _current({**stored, **changes})
    return {name: value for name, value in changes.items() if stored[name] != value}


def _current(task: Mapping[str, Any]) -> UUID | None:
    """The latest version, unless the task was recalled after it."""
    if task["latest_response_id"] is None or task["recalled_clock"] is None:
        latest: UUID | None = task["latest_response_id"]
        return latest
    latest_response = (task["latest_response_clock"], task["latest_response_delivery_id"])
    recalled = (task["recalled_clock"], task["recalled_delivery_id"])
    return task["latest_response_id"] if latest_response > recalled else None


def task_columns(task: TaskObject) -> dict[str, Any]:
    """The columns that Scale's task object fills. What it leaves out is null: tags that were taken off are gone.

    `extra` keeps what has no column, and what a column could not take because its form was wrong.
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
        if name not in TYPED or (name in columns and columns[name] is None and value is not None)
    } or None
    return columns


TYPED = frozenset(
    """task_id type status project batch unique_id instruction urgency tags priority metadata params response
    created_at updated_at completed_at customer_review_status customer_review_comments customer_audited_at
    callback_succeeded callback_completed""".split()  # noqa: SIM905
)
"""Keys of a task object that have a column, or, as `response`, a table of their own."""
