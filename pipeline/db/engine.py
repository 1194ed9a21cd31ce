"""Create engines whose every transaction is bounded in time."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import DisconnectionError, InvalidRequestError

from config import Settings
from pipeline.db.errors import rolled_back
from pipeline.db.json import dumps, loads

LOCK_TIMEOUT_MS = 3_000
STATEMENT_TIMEOUT_MS = 15_000
IDLE_TIMEOUT_MS = 60_000
"""A process that is frozen within a transaction gives its locks back."""
BUSY_TIMEOUT_SECONDS = 5.0
PING_AFTER_IDLE_SECONDS = 5.0


def connect(settings: Settings, *, pool_size: int = 5) -> Engine:
    """An engine for `settings.database_url`. No connection is opened yet.

    A transaction begun on it takes SQLite's write lock at once (BEGIN IMMEDIATE), so that it waits at its start and
    not in its middle; `reading(engine)` gives the one that never takes it.
    """
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            url,
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            json_serializer=dumps,
            json_deserializer=loads,
            pool_size=pool_size,
            max_overflow=-1,  # they cost nothing, and who waits for one would then wait for the lock as well
            hide_parameters=True,
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        event.listen(engine, "commit", _commit_sqlite)
        return engine
    engine = create_engine(
        url,
        # The driver would begin a transaction before each statement; `_begin_postgresql` does so where one is wanted.
        isolation_level="AUTOCOMMIT",
        connect_args={
            "connect_timeout": 3,
            # A server that vanished without a word is given up in 20 s; the system's own patience is a quarter of an hour.
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "application_name": "weighbridge",
            "options": f"-c lock_timeout={LOCK_TIMEOUT_MS} -c statement_timeout={STATEMENT_TIMEOUT_MS}"
            f" -c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS} -c timezone=UTC",
        },
        json_serializer=dumps,
        json_deserializer=loads,
        pool_size=pool_size,
        max_overflow=0,  # such a connection ends when it is given back: under load most callbacks would open one
        pool_use_lifo=True,
        pool_timeout=5,
        hide_parameters=True,
    )
    event.listen(engine, "begin", _begin_postgresql)
    event.listen(engine, "checkin", _remember_checkin)
    event.listen(engine, "checkout", _ping_if_idle)
    return engine


AUTOCOMMIT = {"weighbridge_alone": True}
"""Execution options of a connection whose statements need no transaction around them."""


def read_only(engine: Engine) -> Engine:
    """The same engine for those who only read. On SQLite they never wait for a writer; on PostgreSQL each statement sees
    the newest commit anyway, and is spared the two round trips of a transaction."""
    return engine.execution_options(**AUTOCOMMIT)


def close_on_return(connection: Connection) -> None:
    """Close this connection when it is given back: libpq keeps buffers as large as the largest value that went through."""
    connection.info["carried_much"] = True


def _remember_checkin(_connection: Any, record: Any) -> None:
    record.info["checked_in"] = time.monotonic()
    if record.info.pop("carried_much", False):
        record.invalidate()


def _ping_if_idle(connection: Any, record: Any, _proxy: Any) -> None:
    """Asking before each use whether the server is still there would cost the usual callback a tenth of its time."""
    if time.monotonic() - record.info.get("checked_in", time.monotonic()) < PING_AFTER_IDLE_SECONDS:
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except Exception as gone:
        raise DisconnectionError from gone


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late and is never IMMEDIATE
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    alone = AUTOCOMMIT.items() <= connection.get_execution_options().items()
    connection.exec_driver_sql("BEGIN" if alone else "BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    if not AUTOCOMMIT.items() <= connection.get_execution_options().items():
        connection.exec_driver_sql("BEGIN")


def _commit_sqlite(connection: Connection) -> None:
    if rolled_back(connection):
        raise InvalidRequestError("SQLite has rolled the transaction back")
