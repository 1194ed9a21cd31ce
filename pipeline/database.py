"""The way to the database: engines whose every transaction is bounded, and the migrations."""

from __future__ import annotations

import json
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import uuid_utils.compat
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    BindParameter,
    Connection,
    Engine,
    Float,
    bindparam,
    create_engine,
    event,
    make_url,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidRequestError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from config import Settings
from models.columns import UtcDateTime

PROJECT = Path(__file__).resolve().parent.parent
LOCK_TIMEOUT_MS = 3_000
STATEMENT_TIMEOUT_MS = 15_000
IDLE_TIMEOUT_MS = 60_000
"""A process that is frozen within a transaction gives its locks back."""
BUSY_TIMEOUT_S = 5.0
IDLE_SECONDS = 5.0
PASSING = ("08", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE: connections, rollbacks, resources, locks, interventions, the system. Source: PostgreSQL, "Error Codes"."""


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
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
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


ALONE = {"weighbridge_alone": True}
"""Execution options of a connection whose statements need no transaction around them."""


def reading(engine: Engine) -> Engine:
    """The same engine for those who only read. On SQLite they never wait for a writer; on PostgreSQL each statement sees
    the newest commit anyway, and is spared the two round trips of a transaction."""
    return engine.execution_options(**ALONE)


def new_id() -> UUID:
    """A UUIDv7: sorts by the time it was made."""
    return uuid_utils.compat.uuid7()


def now() -> datetime:
    """The present, aware, in UTC."""
    return datetime.now(UTC)


def instant(moment: datetime) -> str:
    """UTC, milliseconds, `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dumps(value: Any) -> str:
    """JSON for a column; orjson, and the standard library for the integers that orjson refuses."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False)


def loads(text: str | bytes) -> Any:
    """JSON from a column."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def carries_much(connection: Connection) -> None:
    """Close this connection when it is given back: libpq keeps buffers as large as the largest value that went through."""
    connection.info["carried_much"] = True


def _remember_checkin(_connection: Any, record: Any) -> None:
    record.info["checked_in"] = time.monotonic()
    if record.info.pop("carried_much", False):
        record.invalidate()


def _ping_if_idle(connection: Any, record: Any, _proxy: Any) -> None:
    """Asking before each use whether the server is still there would cost the usual callback a tenth of its time."""
    if time.monotonic() - record.info.get("checked_in", time.monotonic()) < IDLE_SECONDS:
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
    alone = ALONE.items() <= connection.get_execution_options().items()
    connection.exec_driver_sql("BEGIN" if alone else "BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    if not ALONE.items() <= connection.get_execution_options().items():
        connection.exec_driver_sql("BEGIN")


def rolled_back(connection: Connection) -> bool:
    """Whether the database has rolled back the whole transaction by itself, as SQLite does when its disk is full. What is
    written now would stand alone."""
    driver: Any = connection.connection
    return connection.dialect.name == "sqlite" and not driver.in_transaction


def passing(error: DBAPIError) -> bool:
    """Whether the same statement may succeed a little later: a lock, a time-out, a server that is full or stops."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] in PASSING
    return (
        isinstance(error, OperationalError)
        and getattr(error.orig, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR
    )


def words(error: BaseException) -> str:
    """What the database says, without the lines that repeat values: those may open files."""
    said = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(said).__name__}: {str(said).partition(chr(10))[0]}"


def _commit_sqlite(connection: Connection) -> None:
    if rolled_back(connection):
        raise InvalidRequestError("SQLite has rolled the transaction back")


class from_now(FunctionElement[datetime]):  # noqa: N801  (a function of SQL)
    """The database's own present plus some seconds. Leases of workers on several machines are measured by one clock."""

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


def insert(database: Connection | str, table: Any) -> Any:
    """The INSERT of a connection's dialect, or of the named one, which knows ON CONFLICT; both dialects read the same."""
    name = database if isinstance(database, str) else database.dialect.name
    return (postgresql if name == "postgresql" else sqlite).insert(table)


# Migrations.


def migrations(database_url: str) -> Config:
    """Alembic's configuration, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT / "migrations"))
    config.attributes["database_url"] = database_url
    return config


def migrate(database_url: str, revision: str = "head") -> None:
    """Bring the database at `database_url` (SQLAlchemy form) to `revision`."""
    if (url := make_url(database_url)).get_backend_name() == "sqlite":
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    command.upgrade(migrations(database_url), revision)


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """The revision that the database has, and the one that this code needs."""
    script = ScriptDirectory.from_config(migrations(""))
    return MigrationContext.configure(connection).get_current_revision(), script.get_current_head()
