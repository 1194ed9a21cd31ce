"""Upgrades without a pause: each migration is judged, and this code works with the schema of a next version."""

import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from models import Job, Task
from pipeline.db.migrations import PROJECT, alembic_config
from pipeline.db.revisions import is_newer_than_code, known_revisions
from pipeline.jobs import queue
from tests.assertions import table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.services import open_on
from tests.migrations.judge import judged, statements_of
from tests.migrations.releases import CONTRACTING, HASTY, next_release, release
from tests.servers import wait_until
from workers.runner import run_due_jobs

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


def use(code: Path, script: Config) -> None:
    """Take the revisions of a copy of the code."""
    script.set_main_option("script_location", str(code / "migrations"))


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


@postgresql_only
def test_what_is_removed_too_early_is_refused(script: Config, tmp_path: Path) -> None:
    use(release(tmp_path / "hasty", HASTY), script)
    assert judged(statements_of(script)) == {"ban-drop-column"}


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


@postgresql_only
def test_a_release_that_expands_and_one_that_contracts_are_accepted(script: Config, tmp_path: Path) -> None:
    """A revision that removes says so to squawk in a comment."""
    newer = next_release(tmp_path / "newer")
    use(release(tmp_path / "newest", CONTRACTING, code=newer), script)
    statements = list(statements_of(script))
    assert any("CONCURRENTLY" in one for one in statements)
    assert any("DROP COLUMN" in one for one in statements)
    assert judged(iter(statements)) == set()


def test_what_is_removed_too_early_stops_the_previous_code_and_loses_nothing(
    script: Config, empty_database_url: str, tmp_path: Path
) -> None:
    """Callbacks are kept, but not applied until the column is back."""
    command.upgrade(script, "head")
    service = open_on(empty_database_url)
    receive_callback(service, callback(boxes("car"), task_id="before"))
    use(release(tmp_path / "hasty", HASTY), script)
    command.upgrade(script, "head")
    receipt = receive_callback(service, callback(boxes("car", "truck"), task_id="before"))
    first = receive_callback(service, callback(boxes("car"), task_id="new"))
    run_due_jobs(service)
    assert (receipt.status, first.status, len(table(service, Job))) == ("stored", "stored", 2)
    with service.engine.begin() as connection:
        connection.execute(text("ALTER TABLE tasks ADD COLUMN urgency VARCHAR"))
        assert all(queue.retry(connection, job_id) for job_id in receipt.jobs + first.jobs)
    run_due_jobs(service)
    assert {row["task_id"]: row["response_count"] for row in table(service, Task)} == {"before": 2, "new": 1}
    service.engine.dispose()


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")
def test_an_index_is_built_again_after_a_build_that_ended_halfway(
    script: Config, empty_database_url: str, tmp_path: Path
) -> None:
    """PostgreSQL leaves the index, and the revision is not recorded."""
    index = ("Build an index", 'build_index(op, "ix_tasks_urgency", "tasks", ["urgency"])')
    use(release(tmp_path / "newer", index), script)
    command.upgrade(script, "head")
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{known_revisions()[-1]}'"))
    command.upgrade(script, "head")
    with engine.connect() as connection:
        assert is_newer_than_code(connection)
        assert "ix_tasks_urgency" in {one["name"] for one in inspect(connection).get_indexes("tasks")}
    engine.dispose()


@postgresql_only
def test_a_migration_that_waits_for_a_long_transaction_lets_callbacks_pass(
    script: Config, empty_database_url: str, tmp_path: Path
) -> None:
    """A backup reads all tables in one transaction: what asks for a table after a migration waits behind it."""
    command.upgrade(script, "head")
    service = open_on(empty_database_url)
    next_version(script, tmp_path, EXPANDING)
    migration = threading.Thread(target=command.upgrade, args=(script, "head"))
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'")
    with service.reader.connect() as observer:
        with service.engine.begin() as backup:
            backup.execute(text("SELECT count(*) FROM tasks"))
            migration.start()
            for number in range(2):
                wait_until(lambda: observer.scalar(waiting), 30, "the migration waits")
                receipt = receive_callback(service, callback(boxes("car"), task_id=f"task-{number}"))
                assert receipt.status == "processed"
        migration.join(60)
    assert "note" in {column["name"] for column in inspect(service.engine).get_columns("tasks")}
    service.engine.dispose()
