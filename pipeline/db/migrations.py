"""Alembic without an ini file: migrate a database while the service runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from pipeline.db.dialect import limit_lock_waits
from pipeline.db.engine import read_only
from pipeline.db.revisions import is_newer_than_code

log = logging.getLogger("alembic.migrations")

PROJECT = Path(__file__).resolve().parents[2]
MIGRATE_LOCK_TIMEOUT_MILLISECONDS = 1_000
"""How long a statement waits for a lock. Callbacks queue behind it, and give up after three seconds."""
LOCK_PAUSE_SECONDS = 2.0
MAX_LOCK_ATTEMPTS = 200
_TRY_LOCK = f"SELECT pg_try_advisory_xact_lock({0x57656967_68627267})"  # "Weighbrg"
_LOCK_NOT_AVAILABLE = "55P03"


def alembic_config(database_url: str) -> Config:
    """Return Alembic's configuration for `database_url` (SQLAlchemy form)."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT / "migrations"))
    config.attributes["database_url"] = database_url
    return config


def migrate(database_url: str, revision: str = "head") -> None:
    """Migrate the database to `revision`. Waits while another process migrates it.

    A database that belongs to a newer version is left as it is, with a warning in the log.
    """
    command.upgrade(alembic_config(database_url), revision)


def build_index(op: Operations, name: str, table: str, columns: Sequence[Any], **options: Any) -> None:
    """Create an index in a migration without stopping writes, and in place of one that was left half built.

    PostgreSQL builds it outside of a transaction: what the revision did before is committed.
    """
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    with op.get_context().autocommit_block() if is_postgresql else nullcontext():
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def run_alone(engine: Engine, run: Callable[[Connection], None]) -> None:
    """Call `run` with a connection while no other process migrates the database, unless that belongs to a newer version.

    On SQLite all revisions are one transaction, whose write lock keeps other processes out. On PostgreSQL each revision
    has its own. It gives up a lock that it does not get at once, and is run again, so that callbacks never wait for long.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    with _lock_sqlite(engine) if is_sqlite else _lock_postgresql(engine) as connection:
        if _belongs_to_newer_version(engine):
            log.warning("the database belongs to a newer version of Weighbridge; nothing to migrate")
        elif is_sqlite:
            run(connection)
        else:
            event.listen(
                engine, "begin", lambda begun: limit_lock_waits(begun, MIGRATE_LOCK_TIMEOUT_MILLISECONDS)
            )
            _run_until_unlocked(engine, run)


def _belongs_to_newer_version(engine: Engine) -> bool:
    with read_only(engine).connect() as connection:
        return is_newer_than_code(connection)


@contextmanager
def _lock_sqlite(engine: Engine) -> Iterator[Connection]:
    """Begin the transaction. With foreign keys on, SQLite deletes the children of a table that batch mode rebuilds."""
    with engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
        with connection.begin():
            yield connection


@contextmanager
def _lock_postgresql(engine: Engine) -> Iterator[Connection]:
    """Hold the lock in a transaction of its own, because CREATE INDEX CONCURRENTLY cannot run in one.

    It waits for every snapshot: that of a statement that waits for the lock, and that which a statement with parameters
    leaves. So this asks again and again, without parameters.
    """
    with engine.connect() as connection:
        while not connection.exec_driver_sql(_TRY_LOCK).scalar():
            connection.rollback()
            time.sleep(LOCK_PAUSE_SECONDS / 10)
        yield connection


def _run_until_unlocked(engine: Engine, run: Callable[[Connection], None]) -> None:
    for attempt in range(1, MAX_LOCK_ATTEMPTS + 1):
        try:
            with engine.connect() as connection:
                return run(connection)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE or attempt == MAX_LOCK_ATTEMPTS:
                raise
            log.warning(
                "migration waits for a transaction that uses its table",
                extra={"attempt": attempt, "error": str(error.orig)},
            )
            time.sleep(LOCK_PAUSE_SECONDS)
