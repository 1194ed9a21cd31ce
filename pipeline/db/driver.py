"""Run single statements by the driver of PostgreSQL, on connections of the engine's pool.

SQLAlchemy's part of a statement, and psycopg's, cost more than reading a small callback. The pool is the same, and so is what
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


@contextmanager
def single_statement(engine: Engine, pooled: PoolProxiedConnection) -> Iterator[psycopg.Connection[Any]]:
    """Lend the driver's connection for one statement that commits by itself. Raises DBAPIError.

    Behind a pooler the statement has a transaction, for its time-outs. As with a Connection of SQLAlchemy a lost server has
    every older connection of the pool replaced.
    """
    connection: Any = pooled.driver_connection
    try:
        if begin := pooled.info.get(BEGIN):
            connection.execute(begin)
        yield connection
        if begin:
            connection.commit()
    except psycopg.Error as fault:
        is_lost = connection.closed or is_disconnect(fault)
        if is_lost:
            engine.pool._invalidate(pooled, fault)
        raise _translated(engine, fault, is_lost) from fault
    except BaseException:  # the process must end while the server still works
        pooled.invalidate()
        raise


def execute_prepared(
    engine: Engine,
    pooled: PoolProxiedConnection,
    name: bytes,
    statement: str,
    parameters: Sequence[str | bytes | None],
) -> bytes | None:
    """Run a statement that commits by itself. Return the first value of its result, as text. Raises DBAPIError.

    name: under which it is prepared, once on each direct connection. Each of its placeholders, %s, has a cast.
    """
    text = _numbered(statement)
    values = [value.encode() if isinstance(value, str) else value for value in parameters]
    formats = [int(isinstance(value, bytes)) for value in parameters]
    with single_statement(engine, pooled) as connection:
        if BEGIN in pooled.info:  # behind a pooler nothing is prepared
            return _first_value(connection.pgconn.exec_params(text, values, None, formats))
        return _execute_prepared(connection.pgconn, pooled.info, name, text, values, formats)


@cache
def _numbered(statement: str) -> bytes:
    """Return a statement with $1, $2 … in place of %s, as libpq wants it."""
    first, *others = statement.split("%s")
    return "".join([first, *(f"${number}{part}" for number, part in enumerate(others, 1))]).encode()


def _execute_prepared(
    server: PGconn, info: dict[Any, Any], name: bytes, text: bytes, values: list[Any], formats: list[int]
) -> bytes | None:
    prepared = info.setdefault(PREPARED, set())
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
