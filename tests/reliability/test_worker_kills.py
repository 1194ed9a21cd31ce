"""SIGKILL to a worker at chosen moments of its work."""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator

import psutil
import psycopg
import pytest

from sandbox.pytest_plugin import ScaleSandbox
from tests.reliability.load import Customer, rows
from tests.servers import wait_until
from tests.service import Service

Start = Callable[..., Service]


@contextlib.contextmanager
def nothing_can_be_recorded(database_url: str) -> Iterator[None]:
    """Hold what a worker must write after its call: the follow-ups, or all of a SQLite file."""
    if database_url.startswith("sqlite"):
        with sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None) as holder:
            holder.execute("BEGIN IMMEDIATE")
            yield
            holder.execute("ROLLBACK")
    else:
        with psycopg.connect(database_url.replace("+psycopg", "")) as held:
            held.execute("SELECT * FROM follow_ups FOR UPDATE")
            yield
            held.rollback()


def kill_who_works(one: Service) -> None:
    """The process that runs the job: a child of the worker, or embedded the worker itself."""
    if one.env["REDIS_URL"]:
        for child in one.processes["worker"].children():
            with contextlib.suppress(psutil.NoSuchProcess):  # with threads it lives only for moments
                child.kill()
    else:
        one.kill("worker")
        one.start("worker")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_worker_killed_before_during_or_after_its_call_of_scale_leaves_one_task(
    database: str, service: Start, request: pytest.FixtureRequest
) -> None:
    redis_url = request.getfixturevalue("redis_url") if database == "postgresql" else None
    database_url = request.getfixturevalue("sqlite_url" if database == "sqlite" else "postgres_url")
    env = {"LEASE_SECONDS": "2", **({"SWEEP_SECONDS": "0.5"} if redis_url else {})}
    one = service(database_url, redis_url, env=env)
    scale = ScaleSandbox(one.sandbox_url.removesuffix("/v1"), None)  # type: ignore[arg-type]
    scale.set_speed("manual")
    customer = Customer(one)

    def struck() -> bool:
        switches = scale.call("GET", "/sandbox/api/faults")["rules"]
        return bool(switches and switches[0]["hits"])

    def created() -> bool:
        return len(scale.tasks()) == len(customer.kept)

    # Scale has the request and has done nothing yet.
    scale.add_fault("hang", seconds=30, times=1)
    customer.send(1)
    wait_until(struck, 30, "Scale is asked")
    kill_who_works(one)
    wait_until(created, 30, "the task is created after all")
    # Scale has made the task, and its answer is under way.
    scale.clear_faults()
    scale.add_fault("hang_after", seconds=30, times=1)
    customer.send(1)
    wait_until(created, 30, "the task is created")
    kill_who_works(one)
    # The answer is here and is about to be recorded.
    scale.clear_faults()
    one.freeze("sandbox")
    customer.send(1)
    wait_until(customer.is_creating, 30, "Scale is asked")
    with nothing_can_be_recorded(database_url):
        one.thaw("sandbox")
        wait_until(created, 30, "the task is created")
        time.sleep(1)
        kill_who_works(one)
    # The task is done, and its callback is here before the answer to its creation.
    scale.clear_faults()
    scale.add_fault("callback_first")
    customer.send(1)
    recorded = "SELECT count(*) FROM follow_ups WHERE state IN ('created', 'completed')"
    wait_until(lambda: rows(database_url, recorded)[0][0] == 4, 60, "every task is joined to its follow-up")
    for task in scale.tasks(status="pending"):
        scale.complete(task["task_id"])
    customer.check()
    # The callback that came first had not to wait for a transaction that waited for Scale.
    assert {tuple(one_try["status"] for one_try in sent["attempts"]) for sent in scale.callbacks()} == {
        (200,)
    }
