"""Alembic's environment: one transaction on a connection of its own, one migration at a time.

Foreign keys are off on SQLite: with them on, it deletes the children of a table that batch mode rebuilds.
"""

from __future__ import annotations

import logging

from alembic import context
from sqlalchemy import Connection

from config import load_settings
from models import Base
from pipeline.db.engine import connect_for_migrations
from pipeline.db.migrations import lock_migrations
from pipeline.db.revisions import is_newer_than_code

log = logging.getLogger("alembic.migrations")


def run(connection: Connection) -> None:
    """Run the migrations that Alembic was called for, unless the database belongs to a newer version."""
    if is_newer_than_code(connection):
        log.warning("the database belongs to a newer version of Weighbridge; nothing to migrate")
        return
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        transactional_ddl=True,
    )
    context.run_migrations()


# pipeline.db.migrations.migrate names the database; `alembic upgrade head` on the command line takes that of the settings.
engine = connect_for_migrations(
    context.config.attributes.get("database_url") or load_settings(process="command").database_url
)
with engine.connect() as connection:
    if connection.dialect.name == "sqlite":
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
    with connection.begin():
        lock_migrations(connection)
        run(connection)
engine.dispose()
