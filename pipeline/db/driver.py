"""Run single statements by the driver of PostgreSQL, on connections of the engine's pool.

SQLAlchemy's part of a statement, and psycopg's, cost more than reading a small callback. The pool is the same, and so is what
its events do: connections are checked after idleness, replaced when old or lost, and given their time-outs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from pipeline.db.errors import is_disconnect
from pipeline.db.postgresql import SET_TIMEOUTS

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
def _driver_connection(engine: Engine, pooled: PoolProxiedConnection) -> Iterator[psycopg.Connection[Any]]:
    """Lend the driver's connection for one statement that commits by itself. Raises DBAPIError.

    As with a Connection of SQLAlchemy a lost server has every older connection of the pool replaced.
    """
    connection: Any = pooled.driver_connection
    try:
        yield connection
    except psycopg.Error as fault:
        is_lost = connection.closed or is_disconnect(fault) or _is_in_pipeline(connection)
        if is_lost:
            engine.pool._invalidate(pooled, fault)
        raise _translated(engine, fault, is_lost) from fault
    except BaseException:  # the process must end while the server still works
        pooled.invalidate()
        raise


def _is_in_pipeline(connection: psycopg.Connection[Any]) -> bool:
    """Return whether a pipeline could not be ended: its server went away halfway."""
    return connection.pgconn.pipeline_status != PipelineStatus.OFF


def execute_alone(
    engine: Engine, statement: str, parameters: Mapping[str, Any], binary: bool
) -> list[tuple[Any, ...]]:
    """Run a statement that commits by itself, and return its rows. Raises DBAPIError.

    SQLAlchemy's Connection around it would cost as much as the statement.
    """
    with pooled_connection(engine) as pooled, _driver_connection(engine, pooled) as connection:
        return _execute(connection, pooled.info, statement, parameters, binary).fetchall()


def _execute(
    connection: psycopg.Connection[Any],
    info: Mapping[Any, Any],
    statement: str,
    parameters: Any,
    binary: bool,
) -> psycopg.Cursor[Any]:
    """Execute a statement with the time-outs in force.

    Behind a pooler what sets them goes before it: both are one transaction and one round trip, as is all that is sent at once.
    """
    if SET_TIMEOUTS not in info:
        return connection.execute(statement, parameters, binary=binary)
    with connection.pipeline():
        connection.execute(info[SET_TIMEOUTS])
        return connection.execute(statement, parameters, binary=binary)


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
    with _driver_connection(engine, pooled) as connection:
        if SET_TIMEOUTS in pooled.info:  # behind a pooler nothing is prepared
            cursor = _execute(connection, pooled.info, statement, parameters, binary=False)
            assert cursor.pgresult is not None
            return cursor.pgresult.get_value(0, 0)
        text = _numbered(statement)
        values = [value.encode() if isinstance(value, str) else value for value in parameters]
        formats = [int(isinstance(value, bytes)) for value in parameters]
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
