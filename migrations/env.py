"""Alembic's environment."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from config import load_settings
from config.private_files import make_new_files_private
from models import Base
from pipeline.db.engine import connect_for_migrations
from pipeline.db.ids import utcnow
from pipeline.db.migrations import run_alone
from pipeline.db.months import is_of_models, make_months


def run(connection: Connection) -> None:
    """Run the migrations that Alembic was called for."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        include_name=is_of_models,
        transactional_ddl=True,
        transaction_per_migration=True,
    )
    context.run_migrations()
    if connection.dialect.name == "postgresql":
        make_months(connection, utcnow())
        connection.commit()


# pipeline.db.migrations.migrate names the database; `alembic upgrade head` on the command line takes that of the settings.
database_url = context.config.attributes.get("database_url")
if database_url is None:
    make_new_files_private()
    database_url = load_settings(process="command").database_url
engine = connect_for_migrations(database_url)
run_alone(engine, run)
engine.dispose()
