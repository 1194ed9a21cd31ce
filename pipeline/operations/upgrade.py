"""Migrate the database and check that no row was lost on the way."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, inspect, select, table

from pipeline.db import months
from pipeline.db.ids import utcnow
from pipeline.db.revisions import revisions
from pipeline.service import Service


class RowsLost(Exception):
    """Raised when a table has fewer rows after a migration than before. The message names each table."""


class Upgrade(NamedTuple):
    """The result of an upgrade."""

    revision: str | None
    previous: str | None
    rows: int | None
    """Number of rows that were compared; None if no table was rebuilt."""

    def __str__(self) -> str:
        if self.previous == self.revision:
            return f"The database is already at revision {self.revision}."
        rows = "" if self.rows is None else f"; all {self.rows:,} rows are there"
        return f"Upgraded the database to revision {self.revision} (it was {self.previous or 'empty'}){rows}."


def upgrade_database(service: Service) -> Upgrade:
    """Migrate to the revision that this code needs, and make the months of bodies that are missing. Raises RowsLost.

    Rows are counted on SQLite only: it rebuilds a table in order to change it.
    """
    with service.reader.begin() as connection:
        previous, required = revisions(connection)
        is_current = previous == required and not months.missing(connection, utcnow())
        rebuilds = connection.dialect.name == "sqlite" and previous != required
        before = _count_rows(connection) if rebuilds else {}
    service.engine.dispose()
    if is_current:
        return Upgrade(required, previous, None)
    from pipeline.db.migrations import migrate  # with Alembic, which most starts do not need

    migrate(service.settings.database_url)
    if not before:
        return Upgrade(required, previous, None)
    with service.reader.begin() as connection:
        after = _count_rows(connection)
    lost = [
        f"{name}: {after[name]} of {rows}" for name, rows in before.items() if after.get(name, rows) < rows
    ]
    if lost:
        raise RowsLost(
            f"Rows are missing after the upgrade to {required} ({', '.join(lost)}). Restore the backup and report this."
        )
    return Upgrade(required, previous, sum(before.values()))


def _count_rows(connection: Connection) -> dict[str, int]:
    names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
    return {name: connection.scalar(select(func.count()).select_from(table(name))) or 0 for name in names}
