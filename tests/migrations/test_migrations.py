"""From an empty database to the tables that the code expects, and back, on each kind of database."""

import os
import subprocess
import sys
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from models import Base
from pipeline.db.migrations import PROJECT, alembic_config, migrate
from pipeline.db.months import is_of_models
from pipeline.db.revisions import is_newer_than_code, known_revisions, revisions

# Indexes of expressions are not read back from SQLite.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Skipped unsupported reflection", "ignore:autogenerate skipping"
)


def tables(database_url: str) -> set[str]:
    engine = create_engine(database_url)
    try:
        return {name for name in inspect(engine).get_table_names() if is_of_models(name, "table", {})}
    finally:
        engine.dispose()


def differences(database_url: str) -> list[Any]:
    """What Alembic would still change to come to the tables of models/."""
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "include_name": is_of_models}
            )
            has, needed = revisions(connection)
            assert has == needed
            return list(compare_metadata(context, Base.metadata))
    finally:
        engine.dispose()


def test_the_migrations_make_the_tables_that_the_code_expects(empty_database_url: str) -> None:
    migrate(empty_database_url)
    assert differences(empty_database_url) == []
    migrate(empty_database_url)  # a second release changes nothing
    assert differences(empty_database_url) == []


def test_the_files_of_the_migrations_are_named_after_their_revisions() -> None:
    script = ScriptDirectory.from_config(alembic_config(""))
    assert list(known_revisions()) == [one.revision for one in script.walk_revisions()][::-1]


def test_the_migrations_can_be_taken_back(empty_database_url: str) -> None:
    migrate(empty_database_url)
    command.downgrade(alembic_config(empty_database_url), "base")
    assert tables(empty_database_url) == {"alembic_version"}
    migrate(empty_database_url)
    assert tables(empty_database_url) == {"alembic_version", *Base.metadata.tables}


@pytest.mark.parametrize("entrance", ["alembic", "migrate"])
def test_several_migrations_at_once_all_succeed(empty_database_url: str, entrance: str) -> None:
    commands = {
        "alembic": [sys.executable, "-m", "alembic", "upgrade", "head"],
        "migrate": [
            sys.executable,
            "-c",
            "import sys; from pipeline.db.migrations import migrate; migrate(sys.argv[1])",
            empty_database_url,
        ],
    }
    environment = {**os.environ, "DATABASE_URL": empty_database_url, "SECRET_KEY": "s"}
    running = [
        subprocess.Popen(commands[entrance], env=environment, cwd=PROJECT, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate()[1] for process in running if process.wait()] == []
    assert differences(empty_database_url) == []


@pytest.fixture
def newer_database_url(empty_database_url: str) -> str:
    """A database that a newer version has migrated."""
    migrate(empty_database_url)
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'from_the_future'")
    engine.dispose()
    return empty_database_url


def test_a_database_of_a_newer_version_is_left_as_it_is(
    newer_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = tables(newer_database_url)
    migrate(newer_database_url)
    assert tables(newer_database_url) == before
    assert "newer version" in caplog.text
    engine = create_engine(newer_database_url)
    with engine.connect() as connection:
        assert is_newer_than_code(connection)
        assert revisions(connection)[0] == "from_the_future"
    engine.dispose()


def test_every_constraint_has_a_name_so_that_sqlite_can_change_its_table(empty_database_url: str) -> None:
    migrate(empty_database_url)
    engine = create_engine(empty_database_url)
    inspector = inspect(engine)
    nameless = [
        (table, kind)
        for table in Base.metadata.tables
        for kind, found in (
            ("primary key", [inspector.get_pk_constraint(table)]),
            ("unique", inspector.get_unique_constraints(table)),
        )
        for one in found
        if not one["name"]
    ]
    engine.dispose()
    assert nameless == []


@pytest.mark.parametrize(
    ("table", "column", "otherwise"),
    [
        ("responses", "response", ("", "x")),
        ("delivery_bodies", "body", ("", "e")),
        ("delivery_bodies_default", "body", ("", "e")),
    ],
)
def test_what_is_large_is_compressed_by_lz4_where_the_server_has_it(
    postgres_url: str, table: str, column: str, otherwise: tuple[str, str]
) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        known = connection.exec_driver_sql(
            "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
        ).scalar()
        found = connection.exec_driver_sql(
            "SELECT attcompression, attstorage FROM pg_attribute"
            f" WHERE attrelid = '{table}'::regclass AND attname = '{column}'"
        ).one()
    engine.dispose()
    assert tuple(found) == (("l", "x") if known else otherwise)
