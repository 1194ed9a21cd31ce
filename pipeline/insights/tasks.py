"""The tasks that numbers are computed from, each as it was known at a moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from more_itertools import chunked
from sqlalchemy import Connection, func, select

from models import Delivery, FollowUp, Response, Task
from pipeline.datasets.filters import Unusable
from pipeline.datasets.selection import task_at
from pipeline.db.memory_budget import ReadTooLarge, temporary_reads
from pipeline.db.sizes import if_small
from workflows.definition.model import INPUT

GROUPS = ("project", "workflow", "step", "week", "type", "batch", "status")
MAX_REBUILT = 5_000
"""Tasks that are computed again from their deliveries, for numbers of an earlier moment."""
ID_BATCH_SIZE = 500
MAX_CATEGORY_CHARACTERS = 1_000
ENDED = ("completed", "canceled", "error")
REBUILT = (
    "type", "project", "batch", "status", "created_at", "completed_at", "review_status", "response_id",
)  # fmt: skip

Row = dict[str, Any]


class TooManyChanges(ValueError):
    """Raised when too many tasks have changed since a moment to be computed again as they were then."""


@dataclass(slots=True)
class Tasks:
    """Every task that was known at a moment."""

    rows: list[Row]
    """GROUPS, and task_id, source_task_id, created_at, completed_at, review_status, response_id, response_count,
    annotation_count, seconds (from creation to completion)."""
    undated: int
    """Tasks without created_at: no number counts them."""
    is_whole: bool
    """Whether older tasks were not left out."""


def read_tasks(connection: Connection, as_of: datetime | None, newest: int | None = None) -> Tasks:
    """Return the tasks as they were known at `as_of`; None: now. All of them, or the `newest`. Raises TooManyChanges."""
    columns = (
        Task.task_id,
        Task.type,
        Task.project,
        Task.batch,
        Task.status,
        Task.created_at,
        Task.completed_at,
        Task.review_status,
        Task.response_id,
        Task.response_count,
        FollowUp.workflow,
        FollowUp.step,
        FollowUp.source_task_id,
        Response.annotation_count,
    )
    statement = (
        select(*columns)
        .outerjoin(FollowUp, FollowUp.unique_id == Task.follow_up_unique_id)
        .outerjoin(Response, Response.id == Task.response_id)
    )
    if newest is not None:
        statement = statement.order_by(Task.id.desc()).limit(newest + 1)
    names = [column.key for column in columns]
    changed = _changed_after(connection, as_of) if as_of is not None else frozenset()
    rows: list[Row] = []
    undated = 0
    found = connection.execute(statement).all()
    for values in found[:newest]:
        row = dict(zip(names, values, strict=True))
        if row["task_id"] in changed and (as_of is None or not _rebuild(connection, row, as_of)):
            continue
        created = row["created_at"]
        if created is None:
            undated += row["type"] != INPUT
            continue
        row["week"] = f"{created - timedelta(days=created.weekday()):%Y-%m-%d}"
        row["seconds"] = (row["completed_at"] - created).total_seconds() if row["completed_at"] else None
        rows.append(row)
    return Tasks(rows, undated, is_whole=newest is None or len(found) <= newest)


def _changed_after(connection: Connection, as_of: datetime) -> frozenset[str]:
    """Return the tasks with a delivery that was received later."""
    later = select(Delivery.task_id).where(
        Delivery.received_at > as_of, Delivery.status == "processed", Delivery.task_id.is_not(None)
    )
    found = connection.scalars(later.distinct().limit(MAX_REBUILT + 1)).all()
    if len(found) > MAX_REBUILT:
        raise TooManyChanges(
            f"More than {MAX_REBUILT:,} tasks have changed since {as_of:%Y-%m-%d %H:%M}; choose a later time."
        )
    return frozenset(task_id for task_id in found if task_id is not None)


def _rebuild(connection: Connection, row: Row, as_of: datetime) -> bool:
    """Set what the deliveries up to `as_of` say of a task. Return whether it was known then."""
    try:
        with temporary_reads():
            earlier = task_at(connection, row["task_id"], as_of)
    except (
        Unusable,
        ReadTooLarge,
    ):  # its bodies were purged, or are too large here: what is known now is all there is
        return True
    if earlier is None:
        return False
    row |= {name: earlier[name] for name in REBUILT}
    versions = select(func.count()).where(Response.task_id == row["task_id"], Response.received_at <= as_of)
    row["response_count"] = connection.scalar(versions)
    row["annotation_count"] = connection.scalar(
        select(Response.annotation_count).where(Response.id == row["response_id"])
    )
    return True


def counted_tasks(
    tasks: Tasks,
    filters: Mapping[str, str | None],
    since: datetime | None,
    until: datetime | None,
) -> list[Row]:
    """Return the tasks that were created in a time and have these values: group → value, None for tasks without one."""
    return [
        row
        for row in tasks.rows
        if (since is None or row["created_at"] >= since)
        and (until is None or row["created_at"] < until)
        and all(row[name] == value for name, value in filters.items())
    ]


def categories_of(connection: Connection, response_ids: Sequence[Any]) -> dict[Any, Any]:
    """Return the `category` of each response's answer; None for one of more than MAX_CATEGORY_CHARACTERS."""
    category = if_small(Response.answer["category"].label("category"), MAX_CATEGORY_CHARACTERS)
    found: dict[Any, Any] = {}
    for some in chunked(response_ids, ID_BATCH_SIZE):
        statement = select(Response.id, category)
        found.update(
            (row.id, row.category) for row in connection.execute(statement.where(Response.id.in_(some)))
        )
    return found
