"""The test servers themselves: they start, die, freeze and come back as the other tests rely on."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests import servers
from tests.databases import MigratedDatabases
from tests.service import ROOT


def test_a_postgres_keeps_its_rows_through_a_kill(own_postgres: servers.OwnPostgres) -> None:
    own_postgres.execute("CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    own_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        own_postgres.execute("SELECT 1")
    own_postgres.restart()
    with psycopg.connect(own_postgres.url("postgres")) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]


def test_a_frozen_postgres_answers_nobody_until_it_is_thawed(own_postgres: servers.OwnPostgres) -> None:
    own_postgres.freeze()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_postgres.url("postgres"), connect_timeout=2)
    own_postgres.thaw()
    own_postgres.execute("SELECT 1")


def test_a_database_made_from_a_template_holds_its_tables(postgres: servers.PostgresServer) -> None:
    with psycopg.connect(postgres.create_database("a_template"), autocommit=True) as connection:
        connection.execute("CREATE TABLE there (n int)")
    try:
        with psycopg.connect(postgres.create_database("a_copy", template="a_template")) as connection:
            assert connection.execute("SELECT count(*) FROM there").fetchone() == (0,)
    finally:
        postgres.drop_database("a_copy")
        postgres.drop_database("a_template")


def test_each_test_gets_an_empty_redis(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_what_one_test_left_in_redis_is_gone_in_the_next(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_redis_can_be_killed_frozen_and_emptied(own_redis: servers.OwnRedis) -> None:
    client = redis.Redis.from_url(own_redis.url, socket_timeout=0.5, socket_connect_timeout=0.5)
    client.set("key", "value")
    own_redis.freeze()
    with pytest.raises(redis.TimeoutError):
        client.get("key")
    own_redis.thaw()
    assert servers.wait_until(lambda: client.get("key")) == b"value"
    own_redis.empty()
    assert client.get("key") is None
    own_redis.kill()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    own_redis.restart()
    assert client.ping()
    client.close()


def _marked(pid: int) -> Iterator[psutil.Process]:
    """Processes that work in a folder that the process `pid` made."""
    for process in psutil.process_iter(["cwd"]):
        if f"-{pid}-" in (process.info["cwd"] or ""):
            yield process


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.usefixtures("postgres", "redis_url")
def test_killed_tests_leave_no_server_behind(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import time
        from tests.servers import start_postgres, start_redis
        postgres, redis = start_postgres(), start_redis()
        print("up", flush=True)
        time.sleep(600)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert child.stdout
        assert child.stdout.readline() == b"up\n"
        assert len(list(_marked(child.pid))) >= 2
    finally:
        child.kill()
        child.communicate()
    servers.wait_until(lambda: not list(_marked(child.pid)), 10, "the servers end")
    folder = servers.new_folder("sweep")
    assert not list(folder.parent.glob(f"weighbridge-*-{child.pid}-*"))
    folder.rmdir()


def run_tests(folder: Path, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in `text`, with the fixtures of this project, in another process."""
    (folder / "test_suite.py").write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", ROOT / "pyproject.toml"]
    return subprocess.run(
        [*command, "--rootdir", folder, folder],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "-p no:cacheprovider", **env},
        check=False,
    )


SUITE = """
def test_one(redis_url): ...
def test_two(): ...
"""


@pytest.mark.parametrize("required", ["0", "1"])
def test_a_run_without_a_server_says_so_in_its_last_line(tmp_path: Path, required: str) -> None:
    # An address that no server can have stands for a machine without one.
    done = run_tests(tmp_path, SUITE, REQUIRE_SERVERS=required, TEST_REDIS_URL="nowhere")
    last = done.stdout.strip().splitlines()[-1]
    if required == "1":
        assert done.returncode == 1
        assert "1 passed, 1 error" in last, done.stdout
    else:
        assert done.returncode == 0
        assert "1 passed, 1 skipped: no Redis in" in last, done.stdout


def test_the_logs_of_a_service_are_shown_when_its_test_fails(tmp_path: Path) -> None:
    done = run_tests(
        tmp_path,
        """
        def test_fails(service, sqlite_url):
            service(sqlite_url, processes=("sandbox",))
            raise AssertionError("without a reason")
        """,
    )
    assert "1 failed" in done.stdout
    assert "Sandbox at http://127.0.0.1:" in done.stdout


def test_a_database_is_used_again_without_its_rows_and_not_after_its_schema_changed(
    postgres: servers.PostgresServer,
) -> None:
    databases = MigratedDatabases(postgres)
    try:
        first, uses = databases.take()
        with psycopg.connect(postgres.url(first)) as connection:
            connection.execute("INSERT INTO workflow_pauses VALUES ('w', 'someone', now())")
        databases.give_back(first, uses)
        second, uses = databases.take()
        assert (second != first, uses) == (True, 1)
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(postgres.url(first))
        with psycopg.connect(postgres.url(second)) as connection:
            assert connection.execute("SELECT count(*) FROM workflow_pauses").fetchone() == (0,)
            connection.execute("ALTER TABLE workflow_pauses ADD COLUMN more text")
        databases.give_back(second, uses)
        third, uses = databases.take()
        assert uses == 0
        databases.give_back(third, uses)
    finally:
        databases.close()
