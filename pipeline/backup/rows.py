"""Rows as lines of JSON, the same for SQLite and PostgreSQL: what one database gave, the other takes.

JSON columns are carried as their text, so that no number changes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    LargeBinary,
    Numeric,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from models import Base, WorkerHeartbeat
from models.columns import UtcDateTime

PAGE_BYTES = 4 * 1024 * 1024
MAX_PAGE_ROWS = 1_000


def tables() -> Sequence[Table]:
    """Return every table of a backup. Heartbeats are left out: they tell of processes."""
    return [one for one in Base.metadata.sorted_tables if one is not WorkerHeartbeat.__table__]


def read_rows(connection: Connection, table: Table) -> Iterator[bytes]:
    """Yield each row as a line, in the order of the primary key, page by page: the pages have about PAGE_BYTES."""
    key = list(table.primary_key.columns)
    encoders = [_encoder(column) for column in table.columns]
    places = [list(table.columns).index(column) for column in key]
    statement = select(*(_as_text(column) for column in table.columns)).order_by(*key)
    after: list[Any] | None = None
    limit = MAX_PAGE_ROWS
    while True:
        page = statement if after is None else statement.where(_after(key, after))
        rows = connection.execute(page.limit(limit)).all()
        size = 0
        for row in rows:
            line = orjson.dumps([encode(value) for encode, value in zip(encoders, row, strict=True)])
            size += len(line)
            yield line
        if len(rows) < limit:
            return
        after = [rows[-1][place] for place in places]
        limit = max(1, min(MAX_PAGE_ROWS, PAGE_BYTES * len(rows) // max(size, 1)))


def _after(key: Sequence[Column[Any]], values: Sequence[Any]) -> Any:
    if len(key) == 1:
        return key[0] > values[0]
    return tuple_(*key) > tuple_(
        *(bindparam(None, value, type_=column.type) for column, value in zip(key, values, strict=True))
    )


def _as_text(column: Column[Any]) -> Any:
    return cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column


def _encoder(column: Column[Any]) -> Callable[[Any], Any]:
    kind = column.type
    if isinstance(kind, LargeBinary):
        return lambda value: None if value is None else base64.b64encode(value).decode()
    if isinstance(kind, UtcDateTime):
        return lambda value: None if value is None else value.astimezone(UTC).isoformat()
    if isinstance(kind, Uuid | Numeric):
        return lambda value: None if value is None else str(value)
    return lambda value: value


def _decoder(column: Column[Any]) -> Callable[[Any], Any]:
    kind = column.type
    if isinstance(kind, LargeBinary):
        return lambda value: None if value is None else base64.b64decode(value)
    if isinstance(kind, UtcDateTime):
        return lambda value: None if value is None else datetime.fromisoformat(value)
    if isinstance(kind, Uuid):
        return lambda value: None if value is None else UUID(value)
    if isinstance(kind, Numeric):
        return lambda value: None if value is None else Decimal(value) if kind.asdecimal else float(value)
    return lambda value: value


def insert_rows(connection: Connection, table: Table, lines: Iterable[bytes]) -> int:
    """Insert the rows of these lines, in statements of about PAGE_BYTES. Return their number."""
    decoders = [(column.name, _decoder(column)) for column in table.columns]
    statement = table.insert().values(
        {column.name: _parameter(connection, column) for column in table.columns}
    )
    batch: list[dict[str, Any]] = []
    size = count = 0
    for line in lines:
        values = orjson.loads(line)
        batch.append(
            {f"_{name}": decode(value) for (name, decode), value in zip(decoders, values, strict=True)}
        )
        size += len(line)
        count += 1
        if size > PAGE_BYTES or len(batch) == MAX_PAGE_ROWS:
            connection.execute(statement, batch)
            batch, size = [], 0
    if batch:
        connection.execute(statement, batch)
    return count


def _parameter(connection: Connection, column: Column[Any]) -> Any:
    if not isinstance(column.type, JSON):
        return bindparam(f"_{column.name}", type_=column.type)
    text = bindparam(f"_{column.name}", type_=Text())
    return cast(text, JSONB) if connection.dialect.name == "postgresql" else text
