"""Work that kills every worker that tries it, such as a result whose file crashes a parser."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from models import Job
from pipeline.jobs import kinds
from pipeline.service import Service
from tests.assertions import table
from tests.factories.jobs import ask, claim, expire
from tests.reliability.load import PAYLOAD, Customer, rows
from tests.servers import wait_until
from tests.service import ROOT
from tests.service import Service as Processes


def test_a_job_that_always_kills_its_worker_is_dead_and_the_others_go_on(service: Service) -> None:
    ask(service, "killer", delay=-100)
    for _ in range(kinds.MAX_LOST_LEASES):
        assert claim(service).subject == "killer"
        expire(service)
    ask(service, "other")
    assert claim(service).subject == "other"
    killer = next(row for row in table(service, Job) if row["subject"] == "killer")
    assert (killer["state"], killer["last_error"]) == (
        "dead",
        "worker lost 3 times in a row while it ran this job",
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_job_that_always_kills_its_worker_is_dead_after_its_attempts_and_the_others_go_on(
    database_url: str, redis_url: str, start_service: Callable[..., Processes], tmp_path: Path
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
    one = start_service(database_url, redis_url, env=env)
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
