"""Migrated, empty PostgreSQL databases for one test each. One whose schema is as it was is emptied and used again, because
to make and drop a database takes several times as long."""

import uuid

import psycopg
from psycopg import sql

from pipeline.db.migrations import migrate
from tests.servers import PostgresServer

MAX_USES = 40
"""Deleted rows stay in the files of their tables."""
SCHEMA = """
SELECT max(xmin::text::bigint), count(*) FROM pg_class
UNION ALL SELECT max(xmin::text::bigint), count(*) FROM pg_attribute
UNION ALL SELECT max(xmin::text::bigint), count(*) FROM pg_constraint
UNION ALL SELECT max(xmin::text::bigint), count(*) FROM pg_trigger
UNION ALL SELECT max(xmin::text::bigint), count(*) FROM pg_proc
UNION ALL SELECT max(xmin::text::bigint), count(*) FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""Changes with every statement that defines anything."""


def for_sqlalchemy(url: str) -> str:
    """Return the form that Settings.database_url has and DATABASE_URL takes too: psycopg 3 is named."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def new_name() -> str:
    """Return a name that no other database of the server has."""
    return f"weighbridge_{uuid.uuid4().hex[:12]}"


class MigratedDatabases:
    """The databases of one run on one server. Each test gets another name: what is left of a test finds no database."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.template = new_name()
        migrate(for_sqlalchemy(server.create_database(self.template)))
        server.close_connections(self.template)
        with psycopg.connect(server.url(self.template)) as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            self.tables = sorted({name for (name,) in found} - {"alembic_version"})
            self.schema = connection.execute(SCHEMA).fetchall()
        self._emptied: list[tuple[str, int]] = []  # name, uses

    def take(self) -> tuple[str, int]:
        """Return the name of an empty database, and how many tests have used it."""
        name = new_name()
        if not self._emptied:
            self.server.create_database(name, template=self.template)
            return name, 0
        former, uses = self._emptied.pop()
        self.server.execute(f'ALTER DATABASE "{former}" RENAME TO "{name}"')
        return name, uses

    def give_back(self, name: str, uses: int) -> None:
        """Empty a database for another test, or drop it."""
        self.server.close_connections(name)
        if uses < MAX_USES and self._empty(name):
            self._emptied.append((name, uses + 1))
        else:
            self.server.drop_database(name)

    def close(self) -> None:
        """Drop every database."""
        for name in (*(name for name, _ in self._emptied), self.template):
            self.server.drop_database(name)

    def _empty(self, name: str) -> bool:
        """Delete every row. Return False if the test has changed the schema or the database's settings."""
        try:
            with psycopg.connect(self.server.url(name), connect_timeout=5) as connection:
                if connection.execute(SCHEMA).fetchall() != self.schema:
                    return False
                connection.execute("SET session_replication_role = replica")  # no foreign keys
                for table in self._filled_tables(connection):
                    connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        except psycopg.Error:
            return False
        return True

    def _filled_tables(self, connection: psycopg.Connection) -> list[str]:
        one = sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})")
        each = [one.format(sql.Literal(table), sql.Identifier(table)) for table in self.tables]
        return [name for (name,) in connection.execute(sql.SQL(" UNION ALL ").join(each))]
