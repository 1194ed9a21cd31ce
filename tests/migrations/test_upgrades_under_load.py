"""An upgrade while callbacks arrive: expand, replace the processes, roll them back, replace them again, and contract."""

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from operator import ge
from pathlib import Path

import pytest
import requests

from pipeline.db.revisions import known_revisions
from tests.amounts import IS_FULL
from tests.migrations.releases import CONTRACTING, next_release, release
from tests.reliability.load import Customer, Sender, rows
from tests.servers import wait_until
from tests.service import ROOT, Service

AT_ONCE = 2
"""Processes that migrate at the same time: one does the work, the other finds it done."""
ROLLED_BACK = ("web", "worker") if IS_FULL else ("web",)
DATABASES = ["postgresql", "sqlite"] if IS_FULL else ["postgresql"]


def migrate_with(code: Path, one: Service) -> None:
    """Run `alembic upgrade head` of a release, as platforms do, from several machines at once."""
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    env = {**one.env, "PYTHONPATH": str(code)}
    running = [
        subprocess.Popen(command, cwd=code, env=env, stderr=subprocess.PIPE, text=True)
        for _ in range(AT_ONCE)
    ]
    assert [process.communicate()[1] for process in running if process.wait()] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", DATABASES)
def test_an_upgrade_under_load_loses_no_callback(
    database: str, service: Callable[..., Service], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    redis_url = request.getfixturevalue("redis_url") if database == "postgresql" else None
    database_url = request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url")
    newer = next_release(tmp_path / "newer")
    newest = release(tmp_path / "newest", CONTRACTING, code=newer)
    env = {"GUNICORN_CMD_ARGS": "--reuse-port", "LEASE_SECONDS": "5"}
    one = service(database_url, redis_url, env=env)
    senders = [Sender(one, pause=0.2, first=1 + n * 100_000) for n in range(2)]

    def wait_for_more(condition: str = "response_count = 1") -> None:
        """Wait until more callbacks have been applied, and more follow-ups completed."""
        tasks, done = f"tasks WHERE {condition}", "follow_ups WHERE state = 'completed'"

        def counts() -> list[int]:
            return [rows(database_url, f"SELECT count(*) FROM {what}")[0][0] for what in (tasks, done)]

        at_least = [number + 5 for number in counts()]
        wait_until(lambda: all(map(ge, counts(), at_least)), 60, condition)

    def replace(names: tuple[str, ...], code: Path, condition: str) -> None:
        """Replace processes one after the other; the former and the newer code work next to each other for a while."""
        for name in names:
            former = one.start_second(name, code)
            wait_for_more(condition)
            former.stop()
            wait_for_more()

    for sender in senders:
        sender.start()
    migrate_with(newer, one)
    replace(("web", "worker"), newer, "service_level IS NOT NULL")
    replace(ROLLED_BACK, ROOT, "urgency IS NOT NULL")  # of the code alone
    replace(ROLLED_BACK, newer, "service_level IS NOT NULL")
    migrate_with(newest, one)
    wait_for_more("service_level IS NOT NULL")
    customer = Customer(one)
    customer.answer_for(senders)
    customer.check()


@pytest.mark.slow
def test_newer_code_waits_for_the_migration(
    sqlite_url: str, service: Callable[..., Service], tmp_path: Path
) -> None:
    """The worker takes no job, web is not ready, and what it is sent nevertheless is kept for the worker."""
    newer = next_release(tmp_path / "newer")
    one = service(sqlite_url, env={"GUNICORN_CMD_ARGS": "--reuse-port"})
    for name in ("web", "worker"):
        one.start_second(name, newer).stop()
    customer = Customer(one)
    ready = requests.get(f"{one.web_url}/readyz", headers={"Authorization": "Bearer api-token"}, timeout=30)
    last = known_revisions()[-1]
    assert ready.status_code == 503
    assert f"migrations: revision {last}; this version needs {int(last) + 2:04}" in ready.json()["problems"]
    customer.send(3)
    worker = one.processes["worker"]
    wait_until(lambda: "weighbridge db upgrade" in worker.tail(), 30, "the worker says what it waits for")
    assert set(rows(sqlite_url, "SELECT status FROM deliveries")) == {("stored",)}
    assert set(rows(sqlite_url, "SELECT kind, attempts FROM jobs")) == {("parse", 0)}
    migrate_with(newer, one)
    customer.check()


@pytest.mark.slow
def test_the_old_code_works_on_while_the_newer_waits_for_the_migration(
    postgres_url: str, redis_url: str, service: Callable[..., Service], tmp_path: Path
) -> None:
    """Both web processes are sent callbacks. What the newer one cannot apply is left to a worker, and the older one takes it."""
    newer = next_release(tmp_path / "newer")
    one = service(postgres_url, redis_url, env={"GUNICORN_CMD_ARGS": "--reuse-port"})
    with ExitStack() as formers:
        for name in ("web", "worker"):
            formers.callback(one.start_second(name, newer).stop)
        customer = Customer(one)
        customer.send(20)
        customer.check()
        assert "callback left to the worker" in one.processes["web"].log.read_text()
        assert "[queues]" not in one.processes["worker"].log.read_text()
        migrate_with(newer, one)
        customer.send(5)
        customer.check()
    customer.send(1)
    customer.check()


@pytest.mark.slow
def test_a_worker_that_waits_for_the_migration_can_be_stopped(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    one = service(f"sqlite:///{tmp_path}/empty.db", processes=("worker",))
    worker = one.processes["worker"]
    wait_until(lambda: "weighbridge db upgrade" in worker.tail(), 30, "the worker waits")
    one.stop("worker")
    assert worker.returncode == -signal.SIGTERM
