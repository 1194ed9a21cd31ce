"""Find filter values that match nothing known, so that a misspelled filter does not look like an empty list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, select

from models import Batch, FollowUp, Task
from pipeline.operations.queries.filters import Filters

MAX_VALUES = 1000

COLUMNS: dict[str, tuple[Any, ...]] = {
    "workflow": (FollowUp.workflow,),
    "step": (FollowUp.step,),
    "type": (Task.type,),
    "status": (Task.status,),
    "project": (Task.project, Batch.project),
    "batch": (Task.batch, Batch.name),
}
"""Filter → the columns that its values come from. Filters with fixed choices are checked by the command line."""


def unknown_values(
    connection: Connection, filters: Filters, also_known: Mapping[str, Iterable[str]] | None = None
) -> dict[str, list[str]]:
    """Return the filters whose value occurs nowhere → the known values, at most MAX_VALUES.

    `also_known` gives values that need not occur in a row, such as the names of loaded workflows.
    """
    found = {}
    for name, value in filters.items():
        if name not in COLUMNS:
            continue
        known = {text for column in COLUMNS[name] for text in _distinct(connection, column)}
        known.update((also_known or {}).get(name, ()))
        if value not in known:
            found[name] = sorted(known)
    return found


def _distinct(connection: Connection, column: Any) -> Iterable[str]:
    statement = select(column).where(column.is_not(None)).distinct().limit(MAX_VALUES)
    return connection.scalars(statement)
