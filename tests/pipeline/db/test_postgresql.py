"""Connections to PostgreSQL: any libpq URI, directly and through PgBouncer, with time-outs in force."""

import itertools
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

from config import Settings, load_settings
from models import Delivery, Job, Task
from pipeline.bootstrap import build_service
from pipeline.db import postgresql
from pipeline.db.driver import pooled_connection
from pipeline.db.engine import connect_for_migrations
from pipeline.db.migrations import PROJECT, migrate
from pipeline.db.postgresql import UnsuitableDatabase, fetch
from pipeline.db.probe import write_fault
from pipeline.jobs import kinds, queue
from pipeline.service import Service
from tests.assertions import table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.servers import OwnPgBouncer, OwnPostgres, wait_until
from workers.runner import run_due_jobs

TIMEOUTS = {"lock_timeout": "3s", "statement_timeout": "15s", "idle_in_transaction_session_timeout": "1min"}
PgBouncers = Callable[..., OwnPgBouncer]


def service_on(url: str) -> Service:
    settings = load_settings({"DATABASE_URL": url, "WORKFLOWS_DIR": "nowhere", "SECRET_KEY": "s"})
    return build_service(settings)


def in_force(service: Service, engine: Any = None) -> dict[str, str]:
    with (engine or service.engine).begin() as connection:
        return {name: connection.scalar(text(f"SHOW {name}")) for name in TIMEOUTS}


# Any libpq URI.


@pytest.mark.parametrize(
    "query",
    [
        "options=-c%20search_path%3Dpublic%20-c%20statement_timeout%3D7s",
        "connect_timeout=9&application_name=mine",
        "keepalives_idle=77&target_session_attrs=read-write",
    ],
)
def test_parameters_of_the_url_hold_together_with_the_time_outs(
    own_postgres: OwnPostgres, query: str
) -> None:
    url = own_postgres.create_database("weighbridge") + f"&{query}"
    service = service_on(url)
    migrate(service.settings.database_url)
    expected = {**TIMEOUTS, "statement_timeout": "7s"} if "options" in query else TIMEOUTS
    assert in_force(service) == in_force(service, service.reader) == expected
    with service.engine.connect() as connection:
        given = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]
    service.engine.dispose()
    for name, value in (part.split("=", 1) for part in query.split("&") if not part.startswith("options")):
        assert given[name] == value


def test_the_first_of_several_hosts_that_accepts_writes_is_used(
    own_postgres: OwnPostgres, other_postgres: OwnPostgres
) -> None:
    for server in (own_postgres, other_postgres):
        server.create_database("weighbridge")
    own_postgres.demote()
    hosts = f"host={own_postgres.folder},{other_postgres.folder}&port=5432,5432"
    url = f"postgresql://postgres@/weighbridge?{hosts}&target_session_attrs=read-write"
    service = service_on(url)
    migrate(service.settings.database_url)
    assert receive_callback(service, callback(boxes("car"))).status == "processed"
    service.engine.dispose()
    with psycopg.connect(other_postgres.url("weighbridge")) as connection:
        assert connection.execute("SELECT count(*) FROM deliveries").fetchone() == (1,)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_refused(own_postgres: OwnPostgres, encoding: str) -> None:
    own_postgres.execute(f"CREATE DATABASE narrow ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = own_postgres.url("narrow").replace("postgresql:", "postgresql+psycopg:")
    for engine in (connect_for_migrations(url), service_on(url).engine):
        with pytest.raises(UnsuitableDatabase, match=f"{encoding}.*UTF8"), engine.connect():
            pass
        engine.dispose()


# Through PgBouncer.


POOLERS: dict[str, dict[str, str]] = {
    "defaults": {},
    "ignores options": {"ignore_startup_parameters": "options"},
    "keeps no prepared statements": {"max_prepared_statements": "0"},
    "keeps prepared statements": {"max_prepared_statements": "200", "ignore_startup_parameters": "options"},
    "two server connections": {"default_pool_size": "2"},
    "session mode": {"pool_mode": "session", "default_pool_size": "20"},
}
in_each_pooler = pytest.mark.parametrize("settings", POOLERS.values(), ids=POOLERS)


@in_each_pooler
def test_behind_a_pooler_every_transaction_has_its_time_outs(
    own_postgres: OwnPostgres, start_pgbouncer: PgBouncers, settings: dict[str, str]
) -> None:
    own_postgres.create_database("weighbridge")
    service = service_on(start_pgbouncer(**settings).url("weighbridge"))
    migrate(service.settings.database_url)
    assert in_force(service) == in_force(service, service.reader) == TIMEOUTS
    sleep = text("SELECT set_config('statement_timeout', '100', true); SELECT pg_sleep(5)")
    with pytest.raises(DBAPIError, match="statement timeout"), service.engine.begin() as connection:
        connection.execute(sleep)
    service.engine.dispose()


@in_each_pooler
def test_behind_a_pooler_many_callbacks_at_once_are_all_processed(
    own_postgres: OwnPostgres, start_pgbouncer: PgBouncers, settings: dict[str, str]
) -> None:
    """Each transaction may reach another server: a statement prepared on one is unknown to the next."""
    own_postgres.create_database("weighbridge")
    service = service_on(start_pgbouncer(**settings).url("weighbridge"))
    migrate(service.settings.database_url)
    statuses: Counter[str] = Counter()

    def post(client: int) -> None:
        for number in range(20):
            body = callback(boxes("car"), task_id=f"task-{client}-{number // 2}", tags=[str(number % 2)])
            statuses[receive_callback(service, body).status] += 1

    clients = [threading.Thread(target=post, args=(client,)) for client in range(5)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert statuses.total() == len(table(service, Delivery)) == 100
    assert set(statuses) <= {"processed", "stored"}  # stored: a row was locked for too long on a slow machine
    task_ids = [row["task_id"] for row in table(service, Task)]
    with service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, task_ids)
    run_due_jobs(service)
    assert all(row["state"] == "ready" for row in table(service, Job))
    service.engine.dispose()


def test_behind_a_pooler_the_commands_work(own_postgres: OwnPostgres, start_pgbouncer: PgBouncers) -> None:
    own_postgres.create_database("weighbridge")
    environment = {
        "DATABASE_URL": start_pgbouncer().url("weighbridge"),
        "SECRET_KEY": "s",
        "PATH": "/usr/bin",
    }
    for command in (["alembic", "upgrade", "head"], ["flask", "db", "current"]):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**environment, "FLASK_APP": "wsgi"},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_a_statement_that_was_prepared_before_a_migration_is_not_used_again(
    own_postgres: OwnPostgres,
) -> None:
    """PostgreSQL refuses it on that connection: "cached plan must not change result type"."""
    service = service_on(own_postgres.create_database("weighbridge"))
    with service.engine.begin() as connection:
        connection.execute(text("CREATE TABLE changing (value integer)"))
    read = text("SELECT * FROM changing")
    for _ in range(10):  # psycopg prepares it
        with service.engine.begin() as connection:
            connection.execute(read)
    with connect_for_migrations(service.settings.database_url).begin() as connection:
        connection.execute(text("ALTER TABLE changing ALTER value TYPE text"))
    with pytest.raises(DBAPIError, match="cached plan"), service.engine.begin() as connection:
        connection.execute(read)
    with service.engine.begin() as connection:
        connection.execute(read)
    service.engine.dispose()


# Statements by the driver alone.

TIMEOUT_OF_STATEMENTS = "SELECT current_setting('statement_timeout')"


@pytest.fixture(params=["directly", "behind a pooler"])
def reached(
    request: pytest.FixtureRequest, own_postgres: OwnPostgres, start_pgbouncer: PgBouncers
) -> Iterator[Service]:
    """A service on a database with an empty table, `kept`."""
    url = own_postgres.create_database("weighbridge")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (value integer)")
    service = service_on(url if request.param == "directly" else start_pgbouncer().url("weighbridge"))
    yield service
    service.engine.dispose()


def test_a_statement_alone_has_the_time_outs_and_commits_by_itself(
    reached: Service, own_postgres: OwnPostgres
) -> None:
    for _ in range(10):  # psycopg prepares a statement that it has executed five times
        assert fetch(reached.engine, TIMEOUT_OF_STATEMENTS, {}) == [("15s",)]
    assert fetch(reached.engine, "INSERT INTO kept VALUES (%(value)s) RETURNING value", {"value": 7}) == [
        (7,)
    ]
    with psycopg.connect(own_postgres.url("weighbridge")) as other:
        assert other.execute("SELECT value FROM kept").fetchall() == [(7,)]


def round_trips(connection: psycopg.Connection[Any], file: Path, run: Callable[[], object]) -> int:
    """Count how often the client waits for the server: what it sends before an answer is one round trip."""
    with file.open("w") as trace:
        connection.pgconn.trace(trace.fileno())
        run()
        connection.pgconn.untrace()
    senders = [line.split("\t")[1] for line in file.read_text().splitlines()]  # F: the client; B: the server
    return sum(sender == "F" for sender, _ in itertools.groupby(senders))


def test_a_statement_alone_is_one_round_trip(reached: Service, tmp_path: Path) -> None:
    def run() -> None:
        assert fetch(reached.engine, TIMEOUT_OF_STATEMENTS, {}) == [("15s",)]

    run()  # which connects, and prepares the statement where no pooler is
    with pooled_connection(reached.engine) as pooled:
        connection: Any = pooled.driver_connection
    assert round_trips(connection, tmp_path / "trace", run) == 1


@pytest.mark.parametrize(
    ("timeout", "statement"),
    [
        ("statement_timeout", "SELECT pg_sleep(60)::text"),
        ("lock_timeout", "DELETE FROM kept RETURNING value"),
    ],
)
def test_the_time_outs_end_a_statement_alone(
    reached: Service, own_postgres: OwnPostgres, timeout: str, statement: str
) -> None:
    timeouts = {**postgresql.TIMEOUTS, timeout: 100}
    engine = postgresql.create(reached.settings.database_url, timeouts=timeouts)
    with psycopg.connect(own_postgres.url("weighbridge")) as holder:
        holder.execute("LOCK kept")
        with pytest.raises(DBAPIError, match=timeout.replace("_", " ")):
            fetch(engine, statement, {})
    engine.dispose()


def test_an_error_of_a_statement_alone_is_sqlalchemys_and_undoes_it(reached: Service) -> None:
    add = """
        WITH added AS (INSERT INTO kept VALUES (%(value)s) RETURNING value)
        SELECT 1 / (SELECT value FROM added), pg_backend_pid()
    """
    ((_, pid),) = fetch(reached.engine, add, {"value": 1})
    with pytest.raises(DataError, match="division by zero") as raised:
        fetch(reached.engine, add, {"value": 0})
    assert not raised.value.connection_invalidated
    assert raised.value.params is None
    assert fetch(reached.engine, "SELECT value, pg_backend_pid() FROM kept", {}) == [(1, pid)]


def test_after_a_statement_alone_has_lost_its_server_the_next_one_has_another(reached: Service) -> None:
    ((pid,),) = fetch(reached.engine, "SELECT pg_backend_pid()", {})
    with pytest.raises(DBAPIError) as raised:
        fetch(reached.engine, "SELECT pg_terminate_backend(pg_backend_pid())", {})
    assert raised.value.connection_invalidated
    ((other,),) = fetch(reached.engine, "SELECT pg_backend_pid()", {})
    assert other != pid


# A server that accepts no writes any more.


def test_a_server_that_accepts_no_writes_says_so(own_postgres: OwnPostgres) -> None:
    service = service_on(own_postgres.create_database("weighbridge"))
    migrate(service.settings.database_url)
    assert write_fault(service.engine) is None
    own_postgres.demote()
    with service.reader.begin() as connection:
        connection.execute(text("SELECT 1"))  # reads go on
    wait_until(lambda: "read-only" in (write_fault(service.engine) or ""), 30, "the server refuses writes")
    with pytest.raises(SQLAlchemyError):
        receive_callback(service, callback(boxes("car")))
    assert table(service, Delivery) == []
    service.engine.dispose()


def test_settings_and_migrations_name_the_same_database(own_postgres: OwnPostgres) -> None:
    own_postgres.create_database("weighbridge")
    url = f"{own_postgres.url('postgres')}&dbname=weighbridge"
    settings = Settings(database_url=url.replace("postgresql:", "postgresql+psycopg:"), secret_key="s")
    migrate(settings.database_url)
    service = build_service(settings)
    with service.engine.connect() as connection:
        assert connection.scalar(text("SELECT current_database()")) == "weighbridge"
    assert table(service, Delivery) == []
    service.engine.dispose()
