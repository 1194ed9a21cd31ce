"""The sweep: it rings for what is due, whatever else goes wrong in its round, and says that its worker is alive."""

import multiprocessing
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
import time_machine
from sqlalchemy import select, update

from config import Settings
from models import KeyValue
from pipeline.db.ids import utcnow
from pipeline.db.state import set_state
from pipeline.jobs import queue
from pipeline.operations.health import HEARTBEAT, degradations
from pipeline.service import Service
from pipeline.sync import reconcile
from workers.dispatcher import JobDispatcher
from workers.sweep import Sweep

Start = Callable[[], Sweep]


@pytest.fixture
def new_sweep(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Start]:
    """`new_sweep()` → the sweep of one more worker, which has two processes; nobody takes its messages."""
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
        started.append(Sweep(Service.open(settings), JobDispatcher(settings)))
        return started[-1]

    yield start
    for one in started:
        one.dispatcher.celery.close()
        one.service.engine.dispose()


def ask(sweep: Sweep, count: int) -> None:
    with sweep.service.engine.begin() as connection:
        queue.enqueue(connection, queue.PLAN, (f"task-{n}" for n in range(count)))


def rung(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen("weighbridge"))


def beats(sweep: Sweep) -> list[str]:
    with sweep.service.reader.begin() as connection:
        return list(connection.scalars(select(KeyValue.key).where(KeyValue.key.startswith(HEARTBEAT))))


def test_each_worker_rings_for_twice_what_it_can_take_and_not_again_at_once(
    new_sweep: Start, redis_url: str
) -> None:
    one, other = new_sweep(), new_sweep()
    ask(one, 10)
    one.sweep()
    assert rung(redis_url) == 4
    one.sweep()
    assert rung(redis_url) == 4
    other.sweep()
    assert rung(redis_url) == 8


def test_nothing_rings_when_nothing_is_due(new_sweep: Start, redis_url: str) -> None:
    new_sweep().sweep()
    assert rung(redis_url) == 0


def test_what_else_goes_wrong_in_its_round_silences_no_bell(
    new_sweep: Start, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a bug of ours")

    one = new_sweep()
    ask(one, 1)
    monkeypatch.setattr(reconcile, "enqueue_due_runs", fail)
    with pytest.raises(ValueError, match="a bug"):
        one.sweep()
    assert rung(redis_url) == 1
    assert beats(one) == [f"{HEARTBEAT}{one.worker_name}"]


def test_workers_that_are_gone_are_forgotten_after_a_day(new_sweep: Start) -> None:
    one = new_sweep()
    with one.service.engine.begin() as connection:
        for name, hours in (("gone", 25), ("just now", 1)):
            set_state(connection, f"{HEARTBEAT}{name}", {})
            moment = utcnow() - timedelta(hours=hours)
            connection.execute(
                update(KeyValue).where(KeyValue.key == f"{HEARTBEAT}{name}").values(changed_at=moment)
            )
    one.sweep()
    assert sorted(beats(one)) == sorted([f"{HEARTBEAT}just now", f"{HEARTBEAT}{one.worker_name}"])


def test_a_silent_worker_is_noticed_by_the_clock_of_the_database(new_sweep: Start) -> None:
    """The clocks of two machines differ."""
    one = new_sweep()
    for late in (-2, 2):
        with time_machine.travel(utcnow() + timedelta(hours=late)):
            one._next_beat = 0.0
            one.sweep()
        with one.service.reader.begin() as connection:
            assert degradations(one.service, connection) == []
    with one.service.engine.begin() as connection:
        connection.execute(update(KeyValue).values(changed_at=utcnow() - timedelta(minutes=2)))
    with one.service.reader.begin() as connection:
        assert "none has reported since" in degradations(one.service, connection)[0]


def test_a_process_that_is_made_during_a_round_can_write(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's locks are known by process: a child of the moment at which one is held would wait for it for ever."""
    within, go_on = threading.Event(), threading.Event()

    def slowly(*_: object) -> None:
        within.set()
        go_on.wait(5)

    monkeypatch.setattr(reconcile, "enqueue_due_runs", slowly)  # called in a transaction
    settings = Settings(database_url=sqlite_url, workflows_dir="config/workflows", secret_key="s")
    sweep = Sweep(Service.open(settings), JobDispatcher(settings))
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
