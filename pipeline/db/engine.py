"""Create engines whose every transaction is bounded in time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError, InvalidRequestError
from sqlalchemy.pool import NullPool

from config import Settings
from pipeline.db import postgresql
from pipeline.db.errors import rolled_back
from pipeline.db.json import dumps, loads

BUSY_TIMEOUT_SECONDS = 5.0
MIGRATION_LOCK_TIMEOUT_SECONDS = 300.0
PING_AFTER_IDLE_SECONDS = 5.0
RECYCLE_AFTER_SECONDS = 300
"""Age at which a pooled connection is replaced: after a switch to another server none stays with the old one for long."""

AUTOCOMMIT = {"weighbridge_autocommit": True}
"""Execution options of a connection whose statements need no transaction around them."""


def connect(settings: Settings, *, pool_size: int = 5) -> Engine:
    """Return an engine for `settings.database_url`. No connection is opened yet.

    On SQLite a transaction takes the write lock at its start (BEGIN IMMEDIATE), so that it never waits for it halfway;
    `read_only(engine)` never takes it.
    """
    if settings.database_url.startswith("sqlite"):
        return _connect_sqlite(settings.database_url, pool_size=pool_size, max_overflow=-1)
    return _connect_postgresql(settings.database_url, pool_size)


def connect_for_migrations(database_url: str) -> Engine:
    """Return an engine without a pool and without time-outs: a migration may rewrite a large table."""
    if database_url.startswith("sqlite"):
        return _connect_sqlite(database_url, MIGRATION_LOCK_TIMEOUT_SECONDS, poolclass=NullPool)
    engine = postgresql.create(database_url, timeouts=postgresql.NO_TIMEOUTS, poolclass=NullPool)
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def read_only(engine: Engine) -> Engine:
    """Return the same engine for transactions that only read.

    On SQLite they never wait for a writer. On PostgreSQL each statement sees the newest commit anyway, so that the two
    round trips of a transaction are saved.
    """
    return engine.execution_options(**AUTOCOMMIT)


@contextmanager
def begin_autocommit(engine: Engine) -> Iterator[Connection]:
    """Begin a block of statements that commit by themselves on PostgreSQL. Costs less than a new `read_only(engine)`."""
    with engine.connect() as connection, connection.execution_options(**AUTOCOMMIT).begin():
        yield connection


def close_on_return(connection: Connection) -> None:
    """Discard this connection on return to the pool, because libpq never shrinks its buffers."""
    connection.info["close_on_return"] = True


def _connect_sqlite(
    database_url: str, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS, **pool: Any
) -> Engine:
    """Return an engine. Overflow is free: a caller that waited for a connection would then wait for the lock as well."""
    url = make_url(database_url)
    Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        connect_args={"timeout": busy_timeout_seconds, "check_same_thread": False},
        json_serializer=dumps,
        json_deserializer=loads,
        hide_parameters=True,
        **pool,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "commit", _check_sqlite_transaction)
    return engine


def _connect_postgresql(database_url: str, pool_size: int) -> Engine:
    engine = postgresql.create(
        database_url,
        timeouts=postgresql.TIMEOUTS,
        json_serializer=dumps,
        json_deserializer=loads,
        pool_size=pool_size,
        max_overflow=0,  # overflow connections are closed on return: under load most callbacks would open one
        pool_use_lifo=True,
        pool_timeout=5,
        pool_recycle=RECYCLE_AFTER_SECONDS,
        pool_reset_on_return=None,  # see _roll_back_if_open
    )
    event.listen(engine, "begin", _begin_postgresql)
    event.listen(engine, "reset", _roll_back_if_open)
    event.listen(engine, "checkin", _on_checkin)
    event.listen(engine, "checkout", _ping_if_idle)
    return engine


def _is_autocommit(connection: Connection) -> bool:
    """Return whether no transaction is wanted: by `read_only`, or in a migration by Alembic's `autocommit_block`."""
    options = connection.get_execution_options()
    return AUTOCOMMIT.items() <= options.items() or options.get("isolation_level") == "AUTOCOMMIT"


def _roll_back_if_open(connection: Any, _record: Any, _state: Any) -> None:
    """Roll back what a returned connection left open. The driver takes longer to find that nothing is."""
    if connection.pgconn.transaction_status:  # 0: idle
        connection.rollback()


def _on_checkin(_connection: Any, record: Any) -> None:
    record.info["checked_in"] = time.monotonic()
    if record.info.pop("close_on_return", False):
        record.invalidate()


def _ping_if_idle(connection: Any, record: Any, _proxy: Any) -> None:
    """Check a connection that was idle. A check before each use would cost a callback a tenth of its time."""
    if time.monotonic() - record.info.get("checked_in", time.monotonic()) < PING_AFTER_IDLE_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
    except Exception as gone:
        raise DisconnectionError from gone


def _begin_postgresql(connection: Connection) -> None:
    """Begin a transaction, unless the statements need none. Behind a pooler each one sets its time-outs itself."""
    if set_timeouts := connection.info.get(postgresql.SET_TIMEOUTS):
        connection.exec_driver_sql(f"BEGIN; {set_timeouts}")
    elif not _is_autocommit(connection):
        connection.exec_driver_sql("BEGIN")


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late and is never IMMEDIATE
    # Savepoints keep their journals in memory, because /tmp may be read-only: SQLite would roll the transaction back.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if _is_autocommit(connection) else "BEGIN IMMEDIATE")


def _check_sqlite_transaction(connection: Connection) -> None:
    if rolled_back(connection):
        raise InvalidRequestError("SQLite has rolled the transaction back")
