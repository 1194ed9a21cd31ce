"""SIGKILL to a worker at chosen moments of its work, and work that kills every worker that tries it."""

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from sandbox.pytest_plugin import ScaleSandbox
from tests.reliability.load import PAYLOAD, Customer, rows
from tests.servers import wait_until
from tests.service import ROOT, Service

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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_that_always_kills_its_worker_is_dead_after_its_attempts_and_the_others_go_on(
    database_url: str, redis_url: str, service: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    shutil.copy(ROOT / "tests/workflows/files/polygons-to-boxes.yaml", folder)
    (folder / "fatal.yaml").write_text(
        "workflow: fatal\nsteps: {s: {after: {type: categorization}, python: 'fatal_step:kill'}}\n"
    )
    (folder / "fatal_step.py").write_text(
        "import os, signal\ndef kill(view):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {
        "PYTHONPATH": str(folder),
        "WORKFLOWS_DIR": str(folder),
        "PYTHON_STEPS": "fatal_step",
        "LEASE_SECONDS": "1",
        "SWEEP_SECONDS": "0.3",
    }
    one = service(database_url, redis_url, env=env)
    fatal = PAYLOAD | {"task_id": "fatal", "response": {"category": "a"}}
    fatal["task"] = PAYLOAD["task"] | {"task_id": "fatal", "type": "categorization"}
    assert one.post_callback(json.dumps(fatal).encode()).json()["status"] == "processed"

    def of_job(column: str) -> object:
        return rows(database_url, f"SELECT {column} FROM jobs WHERE key = 'plan:fatal'")[0][0]

    customer = Customer(one)
    customer.send(5)
    customer.wait()
    wait_until(lambda: of_job("state") == "dead", 60, "the job is dead")
    assert of_job("last_error") == "worker lost 3 times in a row while it ran this job"
    customer.send(1)
    customer.wait()
    assert "jobs: problem" in requests.get(f"{one.web_url}/readyz", timeout=10).text
