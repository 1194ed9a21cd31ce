"""Alembic without an ini file: migrate a database and compare its revision with the code's."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url

PROJECT = Path(__file__).resolve().parents[2]


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
