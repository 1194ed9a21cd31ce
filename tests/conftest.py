"""Fixtures that every room uses: databases, Redis, and the whole service. What they start lives in servers.py and service.py."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from pipeline.db.migrations import migrate
from tests import servers
from tests.databases import MigratedDatabases, for_sqlalchemy, new_name
from tests.process_use import starts_processes
from tests.service import Service

SERVER_FIXTURES = {
    "start_service",
    "web_process",
    "postgres",
    "_redis",
    "own_redis",
    "own_postgres",
    "other_postgres",
    "chromium",
}


OPTIONAL_SERVERS = {"database_url", "redis_url"}
"""Fixtures that start a server for some of their parameters only."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start a server or processes, so that `make quick` leaves them out."""
    for item in items:
        if isinstance(item, pytest.Function) and _starts_servers(item):
            item.add_marker("servers")


def _starts_servers(item: pytest.Function) -> bool:
    """Return whether a test, or a fixture that it uses, starts a server or another process."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if any(isinstance(parameter, str) and parameter == "postgresql" for parameter in parameters):
        return True
    definitions = item._fixtureinfo.name2fixturedefs
    if any(
        definitions[name][-1].func.__module__ == __name__ for name in SERVER_FIXTURES & definitions.keys()
    ):
        return True
    fixtures = (definitions[name][-1].func for name in definitions if name not in OPTIONAL_SERVERS)
    return any(
        starts_processes(function)
        for function in (item.function, *fixtures)
        if isinstance(function, FunctionType) and function.__module__.startswith(("tests", "conftest"))
    )


def _server(start: Callable[[], Any]) -> Any:
    """Return the result of `start`. If a server is missing, skip the test, or fail if REQUIRE_SERVERS=1."""
    try:
        return start()
    except servers.Unavailable as reason:
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail(f"REQUIRE_SERVERS=1, but {reason}", pytrace=False)
        pytest.skip(f"no {reason}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.PostgresServer]:
    """The PostgreSQL of this run. Each test worker has its own unless TEST_DATABASE_URL names one."""
    server = _server(servers.shared_postgres)
    yield server
    if isinstance(server, servers.OwnPostgres):
        server.close()


@pytest.fixture(scope="session")
def _redis(worker_id: str) -> Iterator[servers.RedisServer]:
    number = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
    server = _server(lambda: servers.shared_redis(number))
    yield server
    if isinstance(server, servers.OwnRedis):
        server.close()


@pytest.fixture
def redis_url(_redis: servers.RedisServer) -> str:
    """The URL of an empty Redis database."""
    _redis.empty()
    return _redis.url


@pytest.fixture
def own_redis() -> Iterator[servers.OwnRedis]:
    """A Redis that this test alone uses: it may kill, freeze, fill or empty it."""
    with _server(servers.start_redis) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[servers.OwnPostgres]:
    """A PostgreSQL that this test alone uses: it may kill, freeze or stop it. Its database `postgres` is empty."""
    with _server(servers.start_postgres) as server:
        yield server


@pytest.fixture
def other_postgres() -> Iterator[servers.OwnPostgres]:
    """A second PostgreSQL, to switch to from `own_postgres`."""
    with _server(servers.start_postgres) as server:
        yield server


@pytest.fixture(params=servers.pgbouncer_binaries() or [None])
def start_pgbouncer(
    request: pytest.FixtureRequest, own_postgres: servers.OwnPostgres
) -> Iterator[Callable[..., servers.OwnPgBouncer]]:
    """`start_pgbouncer(**settings)` → a PgBouncer in transaction mode before `own_postgres`, of each installed version."""

    def start(**settings: str) -> servers.OwnPgBouncer:
        binary = request.param
        if "max_prepared_statements" in settings and servers.pgbouncer_version(binary) < (1, 21):
            pytest.skip("max_prepared_statements needs PgBouncer 1.21")
        pooler = _server(lambda: servers.start_pgbouncer(own_postgres, binary, settings))
        return running.enter_context(pooler)  # type: ignore[no-any-return]

    with contextlib.ExitStack() as running:
        yield start


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser of this machine."""
    return _server(servers.chromium)


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The checker of Prometheus' rules and metrics."""
    return _server(servers.promtool)


@pytest.fixture(scope="session")
def kubectl() -> Path:
    """The client of Kubernetes."""
    return _server(servers.kubectl)


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every migration applied and no row. Tests copy it."""
    path = tmp_path_factory.mktemp("migrated") / "weighbridge.db"
    migrate(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture(scope="session")
def migrated_databases(postgres: servers.PostgresServer) -> Iterator[MigratedDatabases]:
    """The migrated PostgreSQL databases of this run."""
    databases = MigratedDatabases(postgres)
    yield databases
    databases.close()


@pytest.fixture
def sqlite_url(migrated_sqlite_file: Path, tmp_path: Path) -> str:
    """A migrated, empty SQLite database."""
    path = tmp_path / "weighbridge.db"
    shutil.copyfile(migrated_sqlite_file, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(migrated_databases: MigratedDatabases) -> Iterator[str]:
    """A migrated, empty PostgreSQL database."""
    name, uses = migrated_databases.take()
    yield for_sqlalchemy(migrated_databases.server.url(name))
    migrated_databases.give_back(name, uses)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated, empty database: the test runs once on SQLite and once on PostgreSQL."""
    return request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table, once on each kind, for tests of migrations."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server = request.getfixturevalue("postgres")
    name = new_name()
    yield for_sqlalchemy(server.create_database(name))
    server.drop_database(name)


@pytest.fixture(scope="module")
def web_process(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The web process alone, on SQLite, for all tests of a module."""
    folder = tmp_path_factory.mktemp("web")
    shutil.copyfile(migrated_sqlite_file, folder / "weighbridge.db")
    with Service(folder, f"sqlite:///{folder}/weighbridge.db", processes=("web",)) as one:
        yield one


@pytest.fixture
def start_service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Service]]:
    """Start the whole service: `start_service(database_url, redis_url=None, env={}, processes=(…))` → Service.

    The end of its logs is shown when the test fails.
    """
    with contextlib.ExitStack() as started:
        services: list[Service] = []

        def start(database_url: str, redis_url: str | None = None, **options: Any) -> Service:
            one = Service(tmp_path_factory.mktemp("service"), database_url, redis_url, **options)
            services.append(one)
            return started.enter_context(one)

        yield start
    for one in services:
        request.node.add_report_section("teardown", "logs of the service", one.logs())


@pytest.fixture
def service(start_service: Callable[..., Service]) -> Callable[..., Service]:
    """`start_service`, where a room does not have a `service` without processes."""
    return start_service


# Name missing servers in the last line of pytest, not only among the reasons for skips.


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    for name in ("PostgreSQL", "Redis"):
        if _skipped_for(report, name):
            return f"skipped: no {name}", "s", f"SKIPPED (no {name})"
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name in ("PostgreSQL", "Redis"):
        if reports := terminalreporter.stats.get(f"skipped: no {name}"):
            terminalreporter.section(f"{len(reports)} tests did not run", yellow=True, bold=True)
            terminalreporter.line(reports[0].longrepr[2].removeprefix("Skipped: "), yellow=True)


def _skipped_for(report: pytest.TestReport, name: str) -> bool:
    return (
        report.skipped
        and isinstance(report.longrepr, tuple)
        and f"Skipped: no {name}: " in report.longrepr[2]
    )
