"""Alembic without an ini file: migrate a database."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
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


def lock_migrations(connection: Connection) -> None:
    """Wait until no other process migrates this database; the lock is held until the transaction ends.

    On SQLite the transaction itself holds the write lock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
