"""Run one statement by libpq, on a connection of the engine's pool: for the first callback of a task, on PostgreSQL.

SQLAlchemy's and psycopg's parts of a statement cost more than reading a small callback. The pool is the same, and so is what
its events do: connections are checked after idleness, replaced when old or lost, and given their time-outs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from pipeline.db.errors import is_disconnect
from pipeline.db.postgresql import BEGIN

PREPARED = "weighbridge_prepared"
"""Key in a connection's `info`: the names of the statements that were prepared on it."""


@contextmanager
def pooled_connection(engine: Engine) -> Iterator[PoolProxiedConnection]:
    """Check a connection out of the pool. Raises SQLAlchemyError if there is none, as `engine.connect()` does."""
    try:
        pooled = engine.raw_connection()
    except psycopg.Error as fault:
        raise _translated(engine, fault) from fault
    try:
        yield pooled
    finally:
        pooled.close()


def execute_alone(
    engine: Engine,
    pooled: PoolProxiedConnection,
    name: bytes,
    statement: str,
    parameters: Sequence[str | bytes | None],
) -> bytes | None:
    """Run a statement that commits by itself. Return the first value of its result, as text. Raises DBAPIError.

    name: under which it is prepared, once on each direct connection. Each of its placeholders, %s, has a cast.
    """
    connection: Any = pooled.driver_connection
    text = _numbered(statement)
    values = [value.encode() if type(value) is str else value for value in parameters]
    formats = [int(type(value) is bytes) for value in parameters]
    try:
        if (begin := pooled.info.get(BEGIN)) is None:
            return _execute_prepared(pooled, name, text, values, formats)
        connection.execute(
            begin
        )  # behind a pooler: with the time-outs of this transaction, and nothing prepared
        value = _first_value(connection.pgconn.exec_params(text, values, None, formats))
        connection.commit()
        return value
    except psycopg.Error as fault:
        is_lost = connection.closed or is_disconnect(fault)
        if is_lost:  # as SQLAlchemy's Connection does: every older connection of the pool is replaced
            engine.pool._invalidate(pooled, fault)
        raise _translated(engine, fault, is_lost) from fault


@cache
def _numbered(statement: str) -> bytes:
    """Return a statement with $1, $2 … in place of %s, as libpq wants it."""
    first, *others = statement.split("%s")
    return "".join([first, *(f"${number}{part}" for number, part in enumerate(others, 1))]).encode()


def _execute_prepared(
    pooled: PoolProxiedConnection, name: bytes, text: bytes, values: list[Any], formats: list[int]
) -> bytes | None:
    server: PGconn = pooled.driver_connection.pgconn  # type: ignore[union-attr]
    prepared = pooled.info.setdefault(PREPARED, set())
    if name not in prepared:
        _check(server.prepare(name, text), ExecStatus.COMMAND_OK)
        prepared.add(name)
    try:
        return _first_value(server.exec_prepared(name, values, formats))
    except InvalidSqlStatementName:  # psycopg drops the statements of its connection after a ROLLBACK
        _check(server.prepare(name, text), ExecStatus.COMMAND_OK)
        return _first_value(server.exec_prepared(name, values, formats))


def _first_value(result: PGresult) -> bytes | None:
    _check(result, ExecStatus.TUPLES_OK)
    return result.get_value(0, 0)


def _check(result: PGresult, expected: ExecStatus) -> None:
    """Raise psycopg.Error if a statement failed."""
    if result.status != expected:
        raise error_from_result(result)


def _translated(engine: Engine, fault: psycopg.Error, is_lost: bool = False) -> BaseException:
    """Return the fault as SQLAlchemy's exception, without the values of the statement."""
    return DBAPIError.instance(
        None,
        None,
        fault,
        psycopg.Error,
        hide_parameters=True,
        connection_invalidated=is_lost,
        dialect=engine.dialect,
    )
