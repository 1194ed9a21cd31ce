"""SQL that differs between PostgreSQL and SQLite: the database's clock, days, and INSERT … ON CONFLICT."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Float,
    Integer,
    LargeBinary,
    String,
    Text,
    bindparam,
    cast,
    func,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from models.columns import UtcDateTime

LOCK_TIMEOUT_MILLISECONDS = 200
"""How long maintenance waits for a lock that callbacks queue behind."""


class from_now(FunctionElement[datetime]):  # noqa: N801  (a function of SQL)
    """The database's present time plus some seconds, so that the leases of all machines are measured by one clock."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float | BindParameter[Any] = 0.0) -> None:
        given = seconds if isinstance(seconds, BindParameter) else bindparam(None, float(seconds))
        super().__init__(type_coerce(given, Float))


@compiles(from_now, "postgresql")
def _from_now_postgresql(element: from_now, compiler: Any, **options: Any) -> str:
    # clock_timestamp() may be another one for each row, so that no index could be searched by it.
    return f"statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)})"


@compiles(from_now, "sqlite")
def _from_now_sqlite(element: from_now, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {seconds} || ' seconds')"


class utc_day(FunctionElement[str]):  # noqa: N801  (a function of SQL)
    """The UTC day of a time as text, YYYY-MM-DD."""

    type = String()
    inherit_cache = True


@compiles(utc_day, "postgresql")
def _utc_day_postgresql(element: utc_day, compiler: Any, **options: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **options)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


@compiles(utc_day, "sqlite")
def _utc_day_sqlite(element: utc_day, compiler: Any, **options: Any) -> str:
    return f"substr({compiler.process(element.clauses, **options)}, 1, 10)"


def insert(database: Connection | str, table: Any) -> Any:
    """Return the INSERT of a connection's dialect, or of the named one, which knows ON CONFLICT; both dialects read the same."""
    name = database if isinstance(database, str) else database.dialect.name
    return (postgresql if name == "postgresql" else sqlite).insert(table)


def one_or_all(rows: list[dict[str, Any]]) -> Any:
    """Return the parameters of an INSERT: for one row the row itself, because a list costs SQLAlchemy several times as much."""
    return rows[0] if len(rows) == 1 else rows


def lock_exclusively(connection: Connection, number: int) -> None:
    """Let one transaction at a time pass here, until it ends. On SQLite every transaction that writes is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(number)))


def limit_lock_waits(connection: Connection, milliseconds: int = LOCK_TIMEOUT_MILLISECONDS) -> None:
    """Let this transaction fail, and be tried again later, where it would wait longer for a lock: callbacks queue behind it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")


class byte_position(FunctionElement[int]):  # noqa: N801  (a function of SQL)
    """Where bytes begin within other bytes, from 1; 0 if they do not occur."""

    type = Integer()
    inherit_cache = True

    def __init__(self, within: Any, wanted: Any) -> None:
        super().__init__(within, wanted)


@compiles(byte_position, "postgresql")
def _byte_position_postgresql(element: byte_position, compiler: Any, **options: Any) -> str:
    return f"pg_catalog.position({compiler.process(element.clauses, **options)})"


@compiles(byte_position, "sqlite")
def _byte_position_sqlite(element: byte_position, compiler: Any, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


class utf8_bytes(FunctionElement[bytes]):  # noqa: N801  (a function of SQL)
    """The text of a value as bytes. A part of them is found at once; of a text the database counts the characters before it."""

    type = LargeBinary()
    inherit_cache = True

    def __init__(self, value: Any) -> None:
        super().__init__(cast(value, Text))


@compiles(utf8_bytes, "postgresql")
def _utf8_bytes_postgresql(element: utf8_bytes, compiler: Any, **options: Any) -> str:
    return f"convert_to({compiler.process(element.clauses, **options)}, 'UTF8')"


@compiles(utf8_bytes, "sqlite")
def _utf8_bytes_sqlite(element: utf8_bytes, compiler: Any, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS BLOB)"
