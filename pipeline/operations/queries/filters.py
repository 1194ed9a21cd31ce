"""Conditions from filters, shared by the queries of all tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, text

from models.columns import PREFIX

Filters = Mapping[str, Any]
"""Name of a filter → value. Absent and None mean: any."""


class NotFound(LookupError):
    """Raised when no row has the requested id. The message names both."""


class Gone(LookupError):
    """Raised when the row is there and its content was purged. The message names it and says when."""


def equal(model: Any, names: Sequence[str], filters: Filters) -> Iterator[ColumnElement[bool]]:
    """Yield `column = value` for each of `names` that `filters` sets."""
    for name in names:
        if (value := filters.get(name)) is not None:
            yield getattr(model, name) == value


def equals_indexed(column: Any, value: str) -> ColumnElement[bool]:
    """Compare `column` with `value` so that its prefix index is used (models/columns.py).

    On SQLite the numbers must be literals, and a second `=` would be constant-folded into the indexed expression.
    """
    found = func.substr(column, text("1"), text(str(PREFIX))) == value[:PREFIX]
    return found if len(value) < PREFIX else found & column.is_not_distinct_from(value)
