"""Connections to PostgreSQL: the same for the service, the commands and the migrations, directly or through a pooler.

The time-outs are sent when a connection is opened. A pooler in transaction mode, such as PgBouncer, refuses or ignores
them, and gives every transaction another server; then each transaction sets them itself, and nothing is prepared.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipeline.db.errors import is_disconnect

if TYPE_CHECKING:
    import psycopg

TIMEOUTS = {
    "lock_timeout": 3_000,
    "statement_timeout": 15_000,
    # A process that is frozen inside a transaction gives its locks back.
    "idle_in_transaction_session_timeout": 60_000,
}
"""Milliseconds."""
NO_TIMEOUTS = {"lock_timeout": 0, "statement_timeout": 0, "idle_in_transaction_session_timeout": 0}

DEFAULTS: Mapping[str, Any] = {
    "connect_timeout": 3,
    # A connection whose server disappeared is closed after 20 s; the operating system would wait a quarter of an hour.
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "weighbridge",
}
"""libpq parameters where DATABASE_URL does not set them."""

SET_TIMEOUTS = "weighbridge_set_timeouts"
"""Key in a connection's `info`: the statement that sets the time-outs of a transaction behind a pooler. Absent on a direct
connection."""

EXECUTE = "weighbridge_execute"
"""Execution option: a function that executes the statement with the driver's cursor, in place of SQLAlchemy."""
COPY_PIECE_BYTES = 128 * 1024


class UnsuitableDatabase(SQLAlchemyError):
    """Raised when the database can be reached but cannot hold the service's data. The message says what to do."""


def create(database_url: str, *, timeouts: Mapping[str, int], **options: Any) -> Engine:
    """Return an engine for `database_url` (any libpq URI, in SQLAlchemy's form), with `timeouts` in force.

    libpq reads the URI, so that every one of its parameters works, several hosts included.
    """
    import psycopg.conninfo  # a process that uses SQLite needs no driver of PostgreSQL

    conninfo = psycopg.conninfo.conninfo_to_dict(
        database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    )
    parameters = connection_parameters(conninfo, timeouts)
    engine = create_engine(
        _display_url(database_url),
        # The driver would begin a transaction before each statement; engine.py does so where one is wanted.
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        **options,
    )

    def open_connection(
        _dialect: Dialect, _record: Any, _arguments: Any, dialect_options: dict[str, Any]
    ) -> Any:
        context = {"context": dialect_options["context"]} if "context" in dialect_options else {}
        try:
            return psycopg.connect(**parameters, **context)
        except psycopg.OperationalError as refused:
            if "startup parameter" not in str(refused):
                raise
            unsupported = {**parameters, "options": conninfo.get("options") or ""}
            return psycopg.connect(**unsupported, **context)

    def set_up(connection: Any, record: Any) -> None:
        _check_encoding(connection)
        if not _is_direct(connection, timeouts):
            connection.prepare_threshold = None
            record.info[SET_TIMEOUTS] = timeouts_statement(timeouts)

    event.listen(engine, "do_connect", open_connection)
    event.listen(engine, "connect", set_up)
    event.listen(engine, "do_execute", _execute)
    event.listen(engine, "handle_error", _mark_disconnect)
    return engine


def insert_large(
    connection: Connection, table: str, key: Mapping[str, UUID], column: str, value: bytes
) -> None:
    """Insert one row of ids, and send `value`, which may be large, in pieces.

    As a parameter it would be one message, and libpq moves what is left of a message after each part that the kernel takes:
    30 MB cost four times as much processor time, most of it in calls that hold the interpreter lock.
    """
    statement = f"COPY {table} ({', '.join([*key, column])}) FROM STDIN (FORMAT binary)"

    def copy(cursor: psycopg.Cursor[Any]) -> None:
        with cursor.copy(statement) as sent:
            for piece in _binary_row([*key.values()], value):
                sent.write(piece)

    connection.exec_driver_sql(statement, execution_options={EXECUTE: copy})


def fetch(
    database: Connection | Engine, statement: str, parameters: Mapping[str, Any], *, binary: bool = False
) -> list[tuple[Any, ...]]:
    """Execute a statement and return its rows as the driver gives them. Given an engine, it commits by itself.

    Costs half the processor time of SQLAlchemy's own way. Every parameter and value is of a type that the driver knows. Given an
    engine, the statement is prepared: see driver.execute().
    `binary`: let the server send bytes as they are and not as text, which has twice the size.
    """
    if isinstance(database, Engine):
        from pipeline.db.driver import execute_alone  # psycopg, which SQLite does not need

        return execute_alone(database, statement, parameters, binary)
    rows: list[tuple[Any, ...]] = []

    def execute(cursor: psycopg.Cursor[Any]) -> None:
        # By another cursor: of this one SQLAlchemy would describe every column.
        rows.extend(cursor.connection.execute(statement, parameters, binary=binary).fetchall())

    database.exec_driver_sql(statement, execution_options={EXECUTE: execute})
    return rows


def _binary_row(ids: Sequence[UUID], large: bytes) -> Iterator[bytes | memoryview]:
    """Yield one row in the binary form of COPY, `large` as its last value."""
    fields = [struct.pack("!i", len(one.bytes)) + one.bytes for one in ids]
    start = b"PGCOPY\n\xff\r\n\0" + bytes(8) + struct.pack("!h", len(fields) + 1)
    yield b"".join([start, *fields, struct.pack("!i", len(large))])
    view = memoryview(large)
    for position in range(0, len(large), COPY_PIECE_BYTES):
        yield view[position : position + COPY_PIECE_BYTES]
    yield struct.pack("!h", -1)


def _execute(cursor: psycopg.Cursor[Any], _statement: str, _parameters: Any, context: Any) -> bool:
    """Execute a statement by its own function; SQLAlchemy executes every statement that has none."""
    execute = context.execution_options.get(EXECUTE)
    if execute is None:
        return False
    execute(cursor)
    return True


def connection_parameters(conninfo: Mapping[str, Any], timeouts: Mapping[str, int]) -> dict[str, Any]:
    """Return the libpq parameters of a connection: those of DATABASE_URL, with our defaults for the others."""
    ours = " ".join(f"-c {name}={value}" for name, value in {**timeouts, "timezone": "UTC"}.items())
    theirs = conninfo.get("options") or ""
    return {
        **DEFAULTS,
        **conninfo,
        "client_encoding": "utf8",
        "options": f"{ours} {theirs}".strip(),  # the last of equal options counts: theirs
    }


def timeouts_statement(timeouts: Mapping[str, int]) -> str:
    """Return the statement that sets `timeouts` until the end of its transaction."""
    settings = {**timeouts, "timezone": "UTC"}
    return "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())


def _display_url(database_url: str) -> URL:
    """Return the URL that SQLAlchemy shows; one that only libpq can read is shown without its parts."""
    try:
        return make_url(database_url)
    except (ArgumentError, ValueError):
        return URL.create("postgresql+psycopg")


def _is_direct(connection: psycopg.Connection[Any], timeouts: Mapping[str, int]) -> bool:
    """Return whether one server answers on this connection as long as it is open, and has time-outs in force.

    A pooler shows itself by the process id: the one it gave at the start is not that of the server that answers.
    """
    pid, *in_force = connection.execute(
        "SELECT pg_backend_pid(), " + ", ".join(f"current_setting('{name}') <> '0'" for name in timeouts),
        prepare=False,
    ).fetchone() or (None,)
    expected = [milliseconds != 0 for milliseconds in timeouts.values()]
    return pid == connection.info.backend_pid and in_force == expected


def _check_encoding(connection: psycopg.Connection[Any]) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        raise UnsuitableDatabase(
            f"the database {connection.info.dbname!r} has the encoding {encoding}, which cannot hold every text:"
            " create one with ENCODING 'UTF8' and name it in DATABASE_URL"
        )


def _mark_disconnect(context: ExceptionContext) -> None:
    """Drop the pool when a server can no longer do the work, so that new connections reach the one that can."""
    if context.original_exception is not None and is_disconnect(context.original_exception):
        context.is_disconnect = True
