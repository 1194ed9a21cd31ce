"""Alembic's environment: one connection of its own, foreign keys off on SQLite while tables are rebuilt.

With them on, SQLite deletes the children of a table that batch mode rebuilds.
"""

from alembic import context
from sqlalchemy import create_engine, pool

from config import load_settings
from models import Base

# pipeline.db.migrations.migrate says which database; `alembic upgrade head` on the command line takes that of the settings.
database_url = context.config.attributes.get("database_url") or load_settings().database_url
engine = create_engine(database_url, poolclass=pool.NullPool)
with engine.connect() as connection:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
