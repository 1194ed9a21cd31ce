"""Numbers about tasks: how many, how long, how good and how expensive, each with its definition, as of any moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from pipeline.db.ids import utcnow
from pipeline.insights.agreement import DEFINITIONS as AGREEMENT
from pipeline.insights.agreement import agreement
from pipeline.insights.labels import (
    CHANGE_DEFINITIONS,
    LABEL_DEFINITIONS,
    label_changes,
    labels_by_week,
    with_label,
)
from pipeline.insights.numbers import COUNTS, DEFINITIONS, group_numbers, mark_late
from pipeline.insights.tasks import GROUPS, Row, counted_tasks, read_tasks
from pipeline.operations.queries.spend import limits_used
from pipeline.service import Service

MAX_TASKS = 20_000
"""Tasks that a web process looks at, which also receives callbacks; the command looks at all of them."""
DEFAULT_GROUPS = ("project", "workflow", "step", "week")
BUDGET_DEFINITIONS: Mapping[str, str] = {
    "limit": "A limit in money of the installation, a workflow or a step.",
    "most": "The amount of the limit.",
    "used": "What the limit has counted in its present period, by the price list at the time of the approval or creation.",
    "left": "The limit minus what is used.",
}
TABLES: Mapping[str, Mapping[str, str]] = {
    "data": DEFINITIONS,
    "agreement": AGREEMENT,
    "label_changes": CHANGE_DEFINITIONS,
    "labels": LABEL_DEFINITIONS,
    "budget": BUDGET_DEFINITIONS,
}
"""Table → number → its definition in one sentence."""
KEYS: Mapping[str, tuple[str, ...]] = {
    "data": GROUPS,
    "agreement": ("workflow", "step"),
    "label_changes": ("before", "after"),
    "labels": ("week", "label"),
    "budget": ("workflow", "step", "period", "unit"),
}
"""Table → the columns that say what a row is about."""


def insights(
    connection: Connection,
    service: Service,
    group_by: Sequence[str] = DEFAULT_GROUPS,
    *,
    filters: Mapping[str, str | None] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: datetime | None = None,
    newest: int | None = None,
) -> dict[str, Any]:
    """Return {as_of, group_by, currency, definitions, undated, is_whole} and the TABLES.

    filters: group → its value; None: tasks without one. since, until: of the creation. as_of: callbacks that were received
    later are ignored; by default now. newest: the largest number of tasks to look at, the newest first. Raises
    TooManyChanges.
    """
    moment = (as_of or utcnow()).astimezone(UTC)
    tasks = read_tasks(connection, as_of and moment, newest)
    counted = counted_tasks(tasks, filters or {}, since, until)
    return {
        "as_of": moment,
        "group_by": list(group_by),
        "currency": service.prices.currency,
        "undated": tasks.undated,
        "is_whole": tasks.is_whole,
        "data": group_numbers(tasks, counted, group_by, service.prices, moment),
        "agreement": agreement(connection, counted),
        "label_changes": label_changes(connection, counted),
        "labels": labels_by_week(connection, counted),
        "budget": [one for one in limits_used(connection, service.workflows) if one["unit"] != "tasks"],
        "definitions": {name: meaning for table in TABLES.values() for name, meaning in table.items()},
    }


def tasks_counted(
    connection: Connection,
    number: str,
    *,
    label: str | None = None,
    filters: Mapping[str, str | None] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    as_of: datetime | None = None,
    newest: int | None = None,
) -> list[Row]:
    """Return the tasks that the count `number` of COUNTS counts, the newest first; with `label` only those with an annotation
    of it. Raises TooManyChanges.
    """
    moment = (as_of or utcnow()).astimezone(UTC)
    tasks = read_tasks(connection, as_of and moment, newest)
    mark_late(tasks, moment)
    found = [row for row in counted_tasks(tasks, filters or {}, since, until) if COUNTS[number](row)]
    if label is not None:
        labeled = with_label(connection, [row["response_id"] for row in found], label)
        found = [row for row in found if row["response_id"] in labeled]
    return sorted(found, key=lambda row: (row["created_at"], row["task_id"]), reverse=True)


def late_tasks(connection: Connection) -> dict[tuple[str | None, str | None], int]:
    """Return (project, batch) → number of its late tasks, of the MAX_TASKS newest tasks."""
    rows = tasks_counted(connection, "late", newest=MAX_TASKS)
    return dict(Counter((row["project"], row["batch"]) for row in rows))
