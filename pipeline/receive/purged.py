"""Apply a delivery to a task whose content was purged: its status goes on, and no content comes back.

The task's row, the digests of its responses and the unique_ids of its follow-ups stay after a purge. A late callback
therefore finds its task and its version, is never taken for something new, and nothing is planned or paid again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from models import Response
from pipeline.db.dialect import insert
from pipeline.receive import rows, versions
from pipeline.receive.rows import DeliveryMeta
from pipeline.receive.versions import Version
from scale.envelope import Callback
from scale.task_types import parse_response

TASK_CONTENT = ("instruction", "tags", "metadata", "params", "extra", "review_comments")
"""Columns of a task that a purge empties."""
RESPONSE_CONTENT = ("response", "answer", "warnings")
"""Columns of a response version that a purge empties. `error` becomes {}: that there was one decides the follow-up's state."""
PURGED_ERROR: dict[str, Any] = {}
WARNING = "its task was purged: status and review were taken from this delivery, and no content"


def apply(
    connection: Connection,
    task: Mapping[str, Any],
    delivery: DeliveryMeta,
    callback: Callback,
    version: Version | None,
    changes: Mapping[str, Any],
) -> None:
    """Take status, review, dates and the digest of a new response from a delivery of a purged task, whose row is locked.

    The bytes are stored as they came, like those of every delivery, until the next purge of bodies.
    """
    kept = {name: value for name, value in changes.items() if name not in TASK_CONTENT}
    if version is not None and version.is_new:
        kept["response_count"] = task["response_count"] + 1
        _insert_version(connection, {**task, **kept}, delivery, callback, version)
    named = callback.task.unique_id if callback.task else None
    if unique_id := rows.link_follow_up(connection, {**task, **kept}, named):
        kept["follow_up_unique_id"] = unique_id
    rows.update_task(connection, task["task_id"], kept)
    rows.update_delivery(connection, delivery.id, warnings=[WARNING], review=None)


def _insert_version(
    connection: Connection,
    task: Mapping[str, Any],
    delivery: DeliveryMeta,
    callback: Callback,
    version: Version,
) -> None:
    """Insert the identity and the counts of a response."""
    params = callback.task.params if callback.task else None
    parsed = parse_response(task["type"], callback.response, params)
    row = versions.version_row(version, task["response_count"], delivery, callback, parsed)
    row |= dict.fromkeys(RESPONSE_CONTENT) | {"error": None if parsed.error is None else PURGED_ERROR}
    connection.execute(insert(connection, Response), row)
    versions.renumber_versions(connection, task["task_id"])
