"""Run single statements by the driver of PostgreSQL, on connections of the engine's pool.

SQLAlchemy's part of a statement, and psycopg's, cost more than reading a small callback. The pool is the same, and so is what
its events do: connections are checked after idleness, replaced when old or lost, and given their time-outs.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import psycopg
from psycopg import generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from pipeline.db.errors import is_disconnect
from pipeline.db.postgresql import SET_TIMEOUTS

PREPARED = "weighbridge_prepared"
"""Key in a connection's `info`: the names of the statements that were prepared on it."""
ADAPTATION = "weighbridge_adaptation"
"""Key in a connection's `info`: psycopg's converter of values."""
_BINARY, _TEXT = PyFormat.BINARY, PyFormat.TEXT


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
    engine: Engine, statement: str, parameters: Mapping[str, Any], binary: bool
) -> list[tuple[Any, ...]]:
    """Check out a connection for one statement: see execute(). SQLAlchemy's Connection would cost as much as the statement."""
    with pooled_connection(engine) as pooled:
        return execute(engine, pooled, statement, parameters, binary)


def execute(
    engine: Engine,
    pooled: PoolProxiedConnection,
    statement: str,
    parameters: Mapping[str, Any],
    binary: bool = False,
) -> list[tuple[Any, ...]]:
    """Run a statement that commits by itself, and return its rows.

    statement: one of a few that are used again and again: each is prepared once on each direct connection. PostgreSQL must know the
    type of each placeholder, %(name)s, from a cast or from what it is compared with.
    binary: let the server send bytes as they are and not as text, which has twice the size.

    Raises DBAPIError. As with a Connection of SQLAlchemy a lost server has every older connection of the pool replaced.
    """
    connection: Any = pooled.driver_connection
    try:
        if SET_TIMEOUTS in pooled.info:
            return _execute_behind_pooler(
                connection, pooled.info[SET_TIMEOUTS], statement, parameters, binary
            )
        return _execute_prepared(connection, pooled.info, statement, parameters, binary)
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


def _execute_behind_pooler(
    connection: Any, set_timeouts: str, statement: str, parameters: Mapping[str, Any], binary: bool
) -> list[tuple[Any, ...]]:
    """Execute a statement with the time-outs in force, without preparing it.

    What sets them goes before it: both are one transaction and one round trip, as is all that is sent at once.
    """
    with connection.pipeline():
        connection.execute(set_timeouts)
        cursor = connection.execute(statement, parameters, binary=binary)
    rows: list[tuple[Any, ...]] = cursor.fetchall()  # in the pipeline it would take a round trip of its own
    return rows


class _Numbered(NamedTuple):
    """A statement as libpq wants it."""

    name: bytes  # under which it is prepared
    text: bytes  # with $1, $2 … in place of its placeholders
    placeholders: tuple[str, ...]


class _Placeholders(dict[str, str]):
    def __missing__(self, name: str) -> str:
        self[name] = f"${len(self) + 1}"
        return self[name]


_numbers = itertools.count()


@cache
def _numbered(statement: str) -> _Numbered:
    placeholders = _Placeholders()
    text = statement % placeholders
    return _Numbered(b"weighbridge_%d" % next(_numbers), text.encode(), tuple(placeholders))


def _execute_prepared(
    connection: Any, info: dict[Any, Any], statement: str, parameters: Mapping[str, Any], binary: bool
) -> list[tuple[Any, ...]]:
    numbered = _numbered(statement)
    values = [parameters[name] for name in numbered.placeholders]
    formats = [_BINARY if isinstance(value, bytes) else _TEXT for value in values]
    adaptation = info.get(ADAPTATION) or info.setdefault(ADAPTATION, Transformer(connection))
    arguments = (adaptation.dump_sequence(values, formats), adaptation.formats, int(binary))
    prepared = info.setdefault(PREPARED, set())
    try:
        result = _run(connection, prepared, numbered, arguments)
    except InvalidSqlStatementName:  # psycopg drops the statements of its connection after a ROLLBACK
        prepared.discard(numbered.name)
        result = _run(connection, prepared, numbered, arguments)
    adaptation.set_pgresult(result)
    rows: list[tuple[Any, ...]] = adaptation.load_rows(0, result.ntuples, tuple)
    adaptation.set_pgresult(None)  # it may be large
    return rows


def _run(
    connection: psycopg.Connection[Any], prepared: set[bytes], statement: _Numbered, arguments: Any
) -> PGresult:
    """Return the rows of a statement, which is prepared first if it is new on this connection."""
    server = connection.pgconn
    if statement.name not in prepared:
        result = _result(connection, server.prepare, server.send_prepare, statement.name, statement.text)
        _check(result, ExecStatus.COMMAND_OK)
        prepared.add(statement.name)
    result = _result(connection, server.exec_prepared, server.send_query_prepared, statement.name, *arguments)
    _check(result, ExecStatus.TUPLES_OK)
    return result


def _result(
    connection: psycopg.Connection[Any],
    run: Callable[..., PGresult],
    send: Callable[..., None],
    *arguments: Any,
) -> PGresult:
    """Return the result of a call of libpq: of `run`, or in the main thread of `send`.

    Python runs signal handlers in the main thread, and only between its own instructions: there the wait for a server must not be one
    call.
    """
    if threading.current_thread() is not threading.main_thread():
        return run(*arguments)
    send(*arguments)
    results: list[PGresult] = connection.wait(generators.execute(connection.pgconn))
    return results[-1]


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
