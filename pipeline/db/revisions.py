"""Compare the revision of a database with those that this code knows. Without Alembic, which only a migration needs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

VERSIONS = Path(__file__).resolve().parents[2] / "migrations/versions"


@cache
def known_revisions() -> tuple[str, ...]:
    """Return the revisions that this code knows, the first one first. The file of each is named <number>_<what it does>.py."""
    return tuple(sorted(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*_*.py")))


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the database has, None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    number: str | None = connection.scalar(
        select(column("version_num")).select_from(table("alembic_version"))
    )
    return number


def revisions(connection: Connection) -> tuple[str | None, str]:
    """Return the revision that the database has, and the one that this code needs."""
    return current_revision(connection), known_revisions()[-1]


def is_newer_than_code(connection: Connection) -> bool:
    """Return whether the database has a revision that this code does not know, as after a rollback of the code."""
    return current_revision(connection) not in (None, *known_revisions())


def is_older_than_code(connection: Connection) -> bool:
    """Return whether the database still has to be migrated for this code."""
    return current_revision(connection) in (None, *known_revisions()[:-1])
