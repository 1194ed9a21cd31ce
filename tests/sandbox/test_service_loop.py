"""Tests with the real service: every task type from creation to rows and a follow-up, also under faults."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.examples import EXAMPLES, example
from sandbox.pytest_plugin import SandboxError, ScaleSandbox
from tests.service import Service

CHAIN = """
workflow: after-{type}
steps:
  next:
    after: {{type: {type}}}
    create:
      type: categorization
      params:
        instruction: Is this good?
        attachment_type: text
        attachment: ${{{{ task.task_id }}}}
        categories: [good, bad]
"""
BAD_DAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("duplicated", {"share": 0.2}),
    ("delayed", {"share": 0.1, "seconds": 0.5}),
    ("reordered", {"share": 0.1, "seconds": 1.0}),
    ("wrong_key", {"share": 0.1}),
    ("no_key", {"share": 0.05}),
    ("repeated", {"share": 0.2}),
    ("volatile", {"share": 0.2}),
    ("reset_after_sending", {"share": 0.1}),
    ("slow_body", {"share": 0.02, "seconds": 0.5}),
    ("chunked", {"share": 0.2}),
    ("callback_first", {"share": 0.1}),
    ("throttled", {"share": 0.02}),
    ("error_before", {"share": 0.05}),
    ("error_after", {"share": 0.05}),
    ("reset", {"share": 0.03}),
    ("reset_after", {"share": 0.03}),
)
ROOTS = 250

Start = Callable[..., Service]


@pytest.fixture
def start_service(
    service: Start, sandbox: ScaleSandbox, sqlite_url: str, tmp_path: Path
) -> Callable[..., Service]:
    """Start the service with these workflow files and this sandbox as its Scale."""

    def start(**workflows: str) -> Service:
        folder = tmp_path / "workflows"
        folder.mkdir()
        for name, text in workflows.items():
            (folder / f"{name}.yaml").write_text(text)
        env = {
            "SCALE_API_URL": sandbox.api_url,
            "SCALE_API_KEY": sandbox.live_key,
            "SCALE_TEST_API_KEY": sandbox.test_key,
            "SCALE_LIVE_CALLBACK_KEYS": sandbox.live_callback_key,
            "SCALE_TEST_CALLBACK_KEYS": sandbox.test_callback_key,
            "ARTIFACT_HOSTS": sandbox.url.removeprefix("http://"),
            "WORKFLOWS_DIR": str(folder),
        }
        return service(sqlite_url, env=env, processes=("web", "worker"))

    return start


def every(service: Service, path: str, **params: Any) -> list[dict[str, Any]]:
    """All rows of a list of the service's API."""
    rows: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = service.api(path, limit=500, **params, **cursor)
        rows += page["data"]
        if page["next_cursor"] is None:
            return rows
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.slow
def test_every_type_goes_from_creation_to_rows_and_into_a_follow_up(
    sandbox: ScaleSandbox, start_service: Callable[..., Service]
):
    sources = [type_name for type_name in EXAMPLES if type_name != "categorization"]
    service = start_service(**{name: CHAIN.format(type=name) for name in sources})
    callback_url = f"{service.web_url}/callbacks/scale"
    made = {
        name: sandbox.create(name, **{**example(name), "callback_url": callback_url})["task_id"]
        for name in sources
    }
    children = sandbox.wait_for(
        lambda: (
            (found := sandbox.tasks(type="categorization", status="completed"))
            and len(found) == len(sources)
            and found
        ),
        seconds=60,
    )
    assert sorted(child["params"]["attachment"] for child in children) == sorted(made.values())
    stored = sandbox.wait_for(
        lambda: (
            (rows := every(service, "/tasks", status="completed")) and len(rows) == 2 * len(sources) and rows
        ),
        30,
    )
    assert {row["type"] for row in stored} == set(EXAMPLES)
    for name, task_id in made.items():
        task = service.api(f"/tasks/{task_id}")
        assert (task["type"], task["status"], task["response_count"]) == (name, "completed", 1)
        assert task["annotation_count"] or task["answer"] or task["artifacts"], name
        assert all(artifact["state"] == "stored" for artifact in task["artifacts"]), task["artifacts"]
        (follow_up,) = task["follow_ups"]
        assert follow_up["state"] == "completed"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_under_every_fault_each_task_is_created_and_completed_once(
    sandbox: ScaleSandbox, start_service: Callable[..., Service]
):
    service = start_service(chain=CHAIN.format(type="polygonannotation"))
    for name, settings in BAD_DAYS:
        sandbox.add_fault(name, **settings)
    callback_url = f"{service.web_url}/callbacks/scale"
    for number in range(ROOTS):
        request = {
            **example("polygonannotation"),
            "callback_url": callback_url,
            "unique_id": f"root-{number}",
        }
        create_in_the_end(sandbox, request)

    def all_there() -> bool:
        return len(sandbox.tasks(type="categorization", status="completed")) >= ROOTS

    sandbox.wait_for(all_there, seconds=400)
    sandbox.wait_for(lambda: len(every(service, "/tasks", status="completed")) == 2 * ROOTS, seconds=120)
    # What still repeats is let come, then counted.
    sandbox.wait_for(
        lambda: "pending" not in sandbox.call("GET", "/sandbox/api/state")["callbacks"], seconds=120
    )

    tasks = sandbox.tasks()
    roots = [task for task in tasks if task["type"] == "polygonannotation"]
    children = [task for task in tasks if task["type"] == "categorization"]
    assert sorted(root["unique_id"] for root in roots) == sorted(f"root-{number}" for number in range(ROOTS))
    assert sorted(child["params"]["attachment"] for child in children) == sorted(
        root["task_id"] for root in roots
    )
    assert {task["status"] for task in tasks} == {"completed"}

    rows = every(service, "/tasks")
    assert sorted(row["task_id"] for row in rows) == sorted(task["task_id"] for task in tasks)
    for row in rows:
        task = service.api(f"/tasks/{row['task_id']}")
        assert (task["status"], task["response_count"], task["response_number"]) == ("completed", 1, 1)
    follow_ups = every(service, "/follow-ups")
    assert [follow_up["state"] for follow_up in follow_ups] == ["completed"] * ROOTS
    assert {delivery["status"] for delivery in every(service, "/deliveries")} == {"processed"}
    assert not [job for job in every(service, "/jobs") if job["state"] == "dead"]


def create_in_the_end(sandbox: ScaleSandbox, request: dict[str, Any]) -> None:
    """As a careful customer creates a task: with its unique_id again and again, until Scale has it."""
    for _ in range(50):
        try:
            sandbox.create("polygonannotation", **request)
            return
        except SandboxError as refused:
            if refused.status == 409:
                return
            time.sleep(0.01)
        except (OSError, requests.RequestException):
            time.sleep(0.01)
    raise AssertionError("Scale never took it")
