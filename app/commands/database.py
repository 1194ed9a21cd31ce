"""`flask db …`: the database's tables, brought to what this code needs."""

from __future__ import annotations

import click
from sqlalchemy import Connection, func, inspect, select, table

from app.commands.group import Group, service
from pipeline.db.migrations import migrate, revisions
from pipeline.service import Service


@click.group(cls=Group)
def db() -> None:
    """The database: which revision it has, and bringing it to this code's."""


@db.command()
def current() -> None:
    """Say which revision the database has, and which one is needed. Ends with 1 when they differ."""
    with service().reader.begin() as connection:
        has, needs = revisions(connection)
    click.echo(f"{has or 'empty'} (needed: {needs})")
    if has != needs:
        raise click.ClickException("The database is not what this code needs; `flask db upgrade` mends it.")


@db.command()
def upgrade() -> None:
    """Bring the database to the revision that this code needs, and see that no row was lost on the way."""
    click.echo(upgrade_database(service()))


def upgrade_database(of: Service) -> str:
    """Migrate; what was done, in a sentence. Raises ClickException when a table of SQLite's has fewer rows than before."""
    with of.reader.begin() as connection:
        before, needed = revisions(connection)
        rebuilds = connection.dialect.name == "sqlite" and before != needed
        counted = _count_rows(connection) if rebuilds else {}
    of.engine.dispose()
    if before == needed:
        return f"The database is at revision {needed} already."
    migrate(of.settings.database_url)
    with of.reader.begin() as connection:
        left = _count_rows(connection) if rebuilds else {}
    if lost := [
        f"{name}: {left[name]} of {rows}" for name, rows in counted.items() if left.get(name, rows) < rows
    ]:
        raise click.ClickException(
            f"After the upgrade to {needed} rows are missing ({', '.join(lost)}). Restore the backup, and report this."
        )
    rows = f"; all {sum(counted.values()):,} rows are there" if counted else ""
    return f"The database is at revision {needed} now (it was {before or 'empty'}){rows}."


def _count_rows(connection: Connection) -> dict[str, int]:
    """Rows of each table. SQLite rebuilds a table in order to change it."""
    names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
    return {name: connection.scalar(select(func.count()).select_from(table(name))) or 0 for name in names}
