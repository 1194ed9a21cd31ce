"""Bounds on the size of values that come from outside and may be megabytes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text, case, cast, func, literal, null

MAX_VALUE_CHARACTERS = 1024 * 1024
"""A larger value is left out of a JSON answer. Its bytes can be downloaded."""


def text_length(*columns: Any) -> Any:
    """Return the number of characters of the columns' values as text."""
    total: Any = literal(0)
    for column in columns:
        total = total + func.coalesce(func.length(cast(column, Text)), 0)
    return total


def if_small(column: Any) -> Any:
    """Return the column, or NULL where its value has more than MAX_VALUE_CHARACTERS."""
    is_small = func.length(cast(column, Text)) <= MAX_VALUE_CHARACTERS
    return case((is_small, column), else_=null()).label(column.key)


def is_left_out(column: Any) -> Any:
    """Return whether `if_small` gives NULL for a value that there is."""
    length = func.coalesce(func.length(cast(column, Text)), 0)
    return (length > MAX_VALUE_CHARACTERS).label(f"{column.key}_is_left_out")
