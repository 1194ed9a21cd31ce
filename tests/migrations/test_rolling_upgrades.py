"""Upgrades without a pause: each migration is judged, and this code works with the schema of a next version."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine

from models import Task
from pipeline.db.migrations import PROJECT, alembic_config
from tests.assertions import table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.services import open_on
from tests.service import BIN
from workers.runner import run_due_jobs

FIRST = "0001"
"""Creates the tables: nothing runs before it."""
EXCLUDED = "require-lock-timeout,require-statement-timeout,prefer-robust-stmts,prefer-text-field,prefer-bigint-over-int"
"""Time-outs are set on the connection; the others are taste."""
IGNORED = ("BEGIN", "SELECT", "SET", "SHOW", "UPDATE ALEMBIC_VERSION")
REVISION = """
from alembic import op
revision, down_revision, branch_labels, depends_on = "next", "{head}", None, None
def upgrade():
    for statement in {statements!r}:
        op.execute(statement)
"""
EXPANDING = [
    "ALTER TABLE tasks ADD COLUMN note TEXT",
    "ALTER TABLE deliveries ADD COLUMN weight BIGINT DEFAULT 0 NOT NULL",
    "CREATE TABLE notes (id BIGINT PRIMARY KEY, note TEXT)",
]


@pytest.fixture
def script(empty_database_url: str) -> Config:
    """The migrations of this version, on an empty database."""
    return alembic_config(empty_database_url)


def next_version(config: Config, folder: Path, statements: list[str]) -> None:
    """Add a revision that runs these statements."""
    head = ScriptDirectory.from_config(config).get_current_head()
    (folder / "next.py").write_text(REVISION.format(head=head, statements=statements))
    config.set_main_option("version_locations", f"{PROJECT}/migrations/versions {folder}")
    config.set_main_option("path_separator", "space")


def statements_of(config: Config) -> Iterator[str]:
    """Run the revisions after the first one, and return the SQL that they ran."""
    command.upgrade(config, FIRST)
    ran: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.lstrip().upper().startswith(IGNORED):
            ran.append(statement)

    event.listen(Engine, "before_cursor_execute", record)
    try:
        command.upgrade(config, "head")
    finally:
        event.remove(Engine, "before_cursor_execute", record)
    yield from ran


def judged(statements: Iterator[str]) -> set[str]:
    """Return the rules of squawk that the statements break."""
    done = subprocess.run(
        [BIN / "squawk", "--reporter", "json", "--pg-version", "15", "--exclude", EXCLUDED],
        input=";\n".join(statements) + ";\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return {found["rule_name"] for found in json.loads(done.stdout or "[]")}


postgresql_only = pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)


@postgresql_only
def test_the_previous_code_runs_with_each_migration(script: Config) -> None:
    assert judged(statements_of(script)) == set()


@postgresql_only
def test_what_would_stop_the_previous_code_is_found(script: Config, tmp_path: Path) -> None:
    breaking = {
        "ALTER TABLE tasks DROP COLUMN urgency": "ban-drop-column",
        "ALTER TABLE tasks RENAME COLUMN instruction TO text": "renaming-column",
        "ALTER TABLE batches ALTER COLUMN name TYPE VARCHAR(2000)": "changing-column-type",
        "ALTER TABLE batches ADD COLUMN size BIGINT NOT NULL": "adding-required-field",
        "CREATE INDEX batches_of_project ON batches (project)": "require-concurrent-index-creation",
        "DROP TABLE batches CASCADE": "ban-drop-table",
    }
    next_version(script, tmp_path, list(breaking))
    assert set(breaking.values()) <= judged(statements_of(script))


def test_this_code_works_with_the_tables_of_a_next_version(
    script: Config, empty_database_url: str, tmp_path: Path
) -> None:
    """And with the rows that it wrote before the migration."""
    command.upgrade(script, "head")
    service = open_on(empty_database_url)
    receive_callback(service, callback(boxes("car"), task_id="before"))
    next_version(script, tmp_path, EXPANDING)
    command.upgrade(script, "head")
    receive_callback(service, callback(boxes("car"), task_id="after"))
    receive_callback(service, callback(boxes("car", "truck"), task_id="before"))
    run_due_jobs(service)
    assert {row["task_id"]: row["response_count"] for row in table(service, Task)} == {
        "before": 2,
        "after": 1,
    }
    service.engine.dispose()
    engine = create_engine(empty_database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM deliveries WHERE weight = 0")) == 3
    engine.dispose()
