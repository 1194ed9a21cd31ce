"""The sweep dispatches what is due, whatever else fails, and stores its worker's heartbeat."""

import multiprocessing
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import time_machine
from sqlalchemy import select, text, update

from config import Settings
from models import WorkerHeartbeat
from pipeline.bootstrap import build_service
from pipeline.db.ids import utcnow
from pipeline.db.months import Month, existing
from pipeline.jobs import kinds, queue
from pipeline.operations import checks
from pipeline.operations.health import record_heartbeat
from pipeline.sync import reconcile
from workers.dispatcher import JobDispatcher
from workers.sweep import Sweep

Start = Callable[[], Sweep]


@pytest.fixture
def new_sweep(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Start]:
    """`new_sweep()` → the sweep of another worker with two processes, whose messages no one consumes."""
    (tmp_path / "workflows").mkdir()
    settings = Settings(
        database_url=database_url,
        redis_url=redis_url,
        workflows_dir=str(tmp_path / "workflows"),
        worker_concurrency=2,
        secret_key="s",
    )
    started: list[Sweep] = []

    def start() -> Sweep:
        started.append(Sweep(build_service(settings), JobDispatcher(settings)))
        return started[-1]

    yield start
    for one in started:
        one.dispatcher.celery.close()
        one.service.engine.dispose()


def ask(sweep: Sweep, count: int) -> None:
    with sweep.service.engine.begin() as connection:
        queue.enqueue(connection, kinds.PLAN, (f"task-{n}" for n in range(count)))


def queue_length(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen("weighbridge"))


def heartbeats(sweep: Sweep) -> set[str]:
    with sweep.service.reader.begin() as connection:
        return set(connection.scalars(select(WorkerHeartbeat.worker)))


def test_each_worker_dispatches_twice_what_it_can_take_and_not_again_at_once(
    new_sweep: Start, redis_url: str
) -> None:
    one, other = new_sweep(), new_sweep()
    ask(one, 10)
    one.sweep()
    assert queue_length(redis_url) == 4
    one.sweep()
    assert queue_length(redis_url) == 4
    other.sweep()
    assert queue_length(redis_url) == 8


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_next_months_of_bodies_are_made(new_sweep: Start) -> None:
    sweep = new_sweep()
    with time_machine.travel("2031-01-31T12:00:00Z"):
        sweep.sweep()
    with sweep.service.reader.begin() as connection:
        assert existing(connection)[-3:] == [Month(2031, 1), Month(2031, 2), Month(2031, 3)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_sweep_goes_on_when_the_months_cannot_be_made(
    new_sweep: Start, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = new_sweep()
    with sweep.service.engine.begin() as reading, time_machine.travel("2031-01-31T12:00:00Z"):
        reading.execute(text("LOCK TABLE delivery_bodies IN ACCESS SHARE MODE"))
        sweep.sweep()
    assert "could not make the next months" in caplog.text
    assert "sweep failed" not in caplog.text


def test_nothing_is_dispatched_when_nothing_is_due(new_sweep: Start, redis_url: str) -> None:
    new_sweep().sweep()
    assert queue_length(redis_url) == 0


def test_a_failure_later_in_the_sweep_does_not_prevent_dispatching(
    new_sweep: Start, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug of ours")

    one = new_sweep()
    ask(one, 1)
    monkeypatch.setattr(reconcile, "enqueue_due_runs", fail)
    with pytest.raises(ValueError, match="a bug"):
        one.sweep()
    assert queue_length(redis_url) == 1
    assert heartbeats(one) == {one.worker_name}


def test_a_worker_that_has_not_reported_for_a_day_is_deleted(new_sweep: Start) -> None:
    one = new_sweep()
    with one.service.engine.begin() as connection:
        for worker, hours in (("gone", 25), ("recent", 1)):
            record_heartbeat(connection, worker, 1)
            at = utcnow() - timedelta(hours=hours)
            beat = update(WorkerHeartbeat).where(WorkerHeartbeat.worker == worker)
            connection.execute(beat.values(last_seen_at=at))
    one.sweep()
    assert heartbeats(one) == {"recent", one.worker_name}


def worker_states(sweep: Sweep) -> list[str]:
    with sweep.service.reader.begin() as connection:
        return [check.state for check in checks.worker(sweep.service, connection)]


def test_a_silent_worker_is_noticed_by_the_clock_of_the_database(new_sweep: Start) -> None:
    """The clocks of two machines differ."""
    for late in (-2, 2):
        with time_machine.travel(utcnow() + timedelta(hours=late)):
            one = new_sweep()
            one.sweep()
        assert worker_states(one) == [checks.OK]
    with one.service.engine.begin() as connection:
        connection.execute(update(WorkerHeartbeat).values(last_seen_at=utcnow() - timedelta(minutes=2)))
    assert worker_states(one) == [checks.PROBLEM]


def test_a_process_forked_during_a_sweep_can_write_to_sqlite(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's locks are known by process: a child of the moment at which one is held would wait for it forever."""
    within, go_on = threading.Event(), threading.Event()

    def slowly(*_: object) -> None:
        within.set()
        go_on.wait(5)

    monkeypatch.setattr(reconcile, "enqueue_due_runs", slowly)  # called in a transaction
    settings = Settings(database_url=sqlite_url, workflows_dir="config/workflows", secret_key="s")
    sweep = Sweep(build_service(settings), JobDispatcher(settings))
    sweep.start()
    assert within.wait(10)
    threading.Timer(0.5, go_on.set).start()
    child = multiprocessing.get_context("fork").Process(
        target=write, args=(sqlite_url.removeprefix("sqlite:///"),)
    )
    child.start()
    child.join()
    sweep.stop()
    sweep.join()
    sweep.service.engine.dispose()
    assert child.exitcode == 0


def write(path: str) -> None:
    with sqlite3.connect(path, isolation_level=None, timeout=2) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
