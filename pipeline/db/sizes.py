"""The size of stored values, counted by the database, so that a large one is known before it is read."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, Connection, Select, String, Text, case, cast, func, literal, null, select

from models import Annotation
from pipeline.db.memory_budget import charge, is_bounded

MAX_VALUE_CHARACTERS = 512 * 1024
"""A larger value is left out of what is read as rows. Its bytes can be downloaded."""
MAX_PAGE_CHARACTERS = 1024 * 1024
"""A page of a list ends before the row that exceeds this; its first row is always there."""
ROW_BYTES = 512
"""Memory of an annotation without its JSON and texts."""
ANNOTATION_VALUES = (
    Annotation.attributes, Annotation.geometry, Annotation.label, Annotation.uuid, Annotation.type
)  # fmt: skip


def text_length(*columns: Any) -> Any:
    """Return the number of characters of the columns' values as text."""
    total: Any = literal(0)
    for column in columns:
        total = total + func.coalesce(func.length(cast(column, Text)), 0)
    return total


def charge_annotations(connection: Connection, *conditions: Any) -> None:
    """Charge the request of this thread for annotations before the database sends them. Raises ReadTooLarge and ReadersBusy."""
    if is_bounded():
        size = select(func.sum(ROW_BYTES + text_length(*ANNOTATION_VALUES))).where(*conditions)
        charge(int(connection.scalar(size) or 0))


def is_large(column: Any) -> bool:
    """Return whether the values of a column may be megabytes: JSON, and text without a length."""
    type_ = column.type
    return isinstance(type_, JSON) or (isinstance(type_, String) and type_.length is None)


def if_small(column: Any, limit: int = MAX_VALUE_CHARACTERS) -> Any:
    """Return the column, or NULL where its value has more than `limit` characters."""
    is_small = func.length(cast(column, Text)) <= limit
    return case((is_small, column), else_=null()).label(column.key)


def read_row(
    connection: Connection, statement: Select[*tuple[Any, ...]], **parameters: Any
) -> dict[str, Any] | None:
    """Return the only row of a statement; None if there is none. `statement` is kept for good: it must be built once.

    In a request with a memory budget a value of more than MAX_VALUE_CHARACTERS is None, and so are the largest ones until the rest
    has no more than MAX_PAGE_CHARACTERS. `left_out` names them.
    """
    if not is_bounded():
        whole = connection.execute(statement, parameters).mappings().one_or_none()
        return None if whole is None else {**whole, "left_out": []}
    sizes = connection.execute(_sizes(statement), parameters).mappings().one_or_none()
    if sizes is None:
        return None
    left_out, total = [], 0
    for name, size in sorted(sizes.items(), key=lambda item: item[1]):
        total += size
        if size > MAX_VALUE_CHARACTERS or total > MAX_PAGE_CHARACTERS:
            left_out.append(name)
    row = connection.execute(_without(statement, frozenset(left_out)), parameters).mappings().one_or_none()
    return None if row is None else {**row, "left_out": [name for name in sizes if name in left_out]}


@lru_cache(maxsize=100)
def _sizes(statement: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    large = [column for column in statement.selected_columns if is_large(column)]
    sizes = (text_length(column).label(column.key) for column in large)
    return statement.with_only_columns(*sizes, maintain_column_froms=True)


@lru_cache(maxsize=100)
def _without(statement: Select[*tuple[Any, ...]], left_out: frozenset[str]) -> Select[*tuple[Any, ...]]:
    """Return the statement with NULL for these columns."""
    columns = (
        null().label(column.key) if column.key in left_out else column
        for column in statement.selected_columns
    )
    return statement.with_only_columns(*columns, maintain_column_froms=True)
