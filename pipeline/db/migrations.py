"""Alembic without an ini file: migrate a database, and compare its revision with the one that this code needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select

PROJECT = Path(__file__).resolve().parents[2]
_LOCK_KEY = 0x57656967_68627267  # "Weighbrg"


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


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """Return the revision that the database has, and the one that this code needs."""
    script = ScriptDirectory.from_config(alembic_config(""))
    return MigrationContext.configure(connection).get_current_revision(), script.get_current_head()


def is_newer_than_code(connection: Connection, script: ScriptDirectory | None = None) -> bool:
    """Return whether the database has a revision that this code does not know, as after a rollback of the code."""
    script = script or ScriptDirectory.from_config(alembic_config(""))
    current = MigrationContext.configure(connection).get_current_heads()
    known = {revision.revision for revision in script.walk_revisions()}
    return not known.issuperset(current)


def lock_migrations(connection: Connection) -> None:
    """Wait until no other process migrates this database; the lock is held until the transaction ends.

    On SQLite the transaction itself holds the write lock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
