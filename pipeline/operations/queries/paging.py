"""Keyset pagination: the last page is as quick as the first, and rows that arrive meanwhile shift nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Select, Subquery, Uuid, func, literal, select, tuple_
from sqlalchemy.types import TypeEngine

from models.columns import UtcDateTime
from pipeline.db.ids import parse_timestamp
from pipeline.db.sizes import MAX_PAGE_CHARACTERS, if_small, is_large, text_length

Record = dict[str, Any]

DEFAULT_LIMIT = 100


class InvalidCursor(ValueError):
    """Raised when a cursor was not issued by this list."""

    def __init__(self) -> None:
        super().__init__("Invalid cursor; omit it to start at the first page.")


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive rows of a list."""

    rows: Sequence[Mapping[str, Any]]
    next_cursor: str | None
    """The cursor of the next page; None on the last one."""


def paginate(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    key: Sequence[Any],
    *,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
    ascending: bool = False,
    kept: Sequence[Any] = (),
) -> Page:
    """Return one page of `statement` in the order of `key`: columns that it selects, unique together.

    A value of more than MAX_VALUE_CHARACTERS is None, and a page has fewer rows than `limit` if they would have more than
    MAX_PAGE_CHARACTERS; the database sends no more. `kept`: columns whose values are never None. Raises InvalidCursor.
    """
    if cursor:
        position = tuple_(*key) if len(key) > 1 else key[0]
        values = [
            literal(value, column.type) for value, column in zip(_decode(cursor, key), key, strict=True)
        ]
        start = tuple_(*values) if len(key) > 1 else values[0]
        statement = statement.where(position > start if ascending else position < start)
    order = [column.asc() if ascending else column.desc() for column in key]
    statement = _within_size(statement.order_by(*order).limit(limit + 1), key, kept, ascending)
    found = [dict(row) for row in connection.execute(statement).mappings()]
    rows = found[:limit]
    has_more = bool(found) and found[0][AVAILABLE] > len(rows)
    for row in rows:
        del row[AVAILABLE], row[PRECEDING], row[SIZE]
    return Page(rows, _encode([rows[-1][column.key] for column in key]) if has_more else None)


MAX_COUNTED = 10_000
"""Rows that are counted. A list says "10,000+" beyond that, so that a count takes the same time in a table of any size."""


def count_up_to(connection: Connection, statement: Any, limit: int = MAX_COUNTED) -> int:
    """Return the number of rows of `statement`, or `limit` + 1 if there are more."""
    counted = select(func.count()).select_from(statement.limit(limit + 1).subquery())
    return connection.scalar(counted) or 0


SIZE, PRECEDING, AVAILABLE = "_size", "_preceding", "_available"


def _within_size(
    statement: Select[*tuple[Any, ...]], key: Sequence[Any], kept: Sequence[Any], ascending: bool
) -> Select[Any]:
    """Select the first row of `statement`, and those up to which there are at most MAX_PAGE_CHARACTERS."""
    names = {column.key for column in (*key, *kept)}
    columns = [
        if_small(column) if is_large(column) and column.key not in names else column
        for column in statement.selected_columns
    ]
    size = text_length(*(column for column in columns if is_large(column))).label(SIZE)
    sized = statement.with_only_columns(*columns, size, maintain_column_froms=True).subquery()
    preceding = func.sum(sized.c[SIZE]).over(order_by=_ordered(sized, key, ascending), rows=(None, -1))
    counted = select(
        sized, func.coalesce(preceding, 0).label(PRECEDING), func.count().over().label(AVAILABLE)
    ).subquery()
    is_within = counted.c[PRECEDING] + counted.c[SIZE] <= MAX_PAGE_CHARACTERS
    is_first = counted.c[PRECEDING] == 0
    return select(counted).where(is_within | is_first).order_by(*_ordered(counted, key, ascending))


def _ordered(rows: Subquery, key: Sequence[Any], ascending: bool) -> list[Any]:
    columns = [rows.c[column.key] for column in key]
    return [column.asc() if ascending else column.desc() for column in columns]


def _encode(values: list[Any]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(values)).rstrip(b"=").decode()


def _decode(cursor: str, key: Sequence[Any]) -> list[Any]:
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(values) != len(key):
            raise ValueError(cursor)
        return [_typed(value, column.type) for value, column in zip(values, key, strict=True)]
    except (ValueError, TypeError, OverflowError):
        raise InvalidCursor from None


def _typed(value: Any, type_: TypeEngine[Any]) -> Any:
    if isinstance(type_, Uuid):
        return UUID(str(value))
    if isinstance(type_, UtcDateTime):
        return parse_timestamp(value)
    if type(value) is not type_.python_type:
        raise TypeError(value)
    if (isinstance(value, int) and abs(value) >= 2**63) or (isinstance(value, str) and "\0" in value):
        raise ValueError(value)
    return value
