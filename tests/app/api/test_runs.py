"""Runs in the API and the commands: whole chains with their state, open follow-ups and cost; and the preview of an undo."""

import pytest
from flask.testing import FlaskClient

from tests.app.api.conftest import Deliver, Get, Plan


@pytest.fixture
def root(deliver: Deliver, get: Get) -> str:
    """The id of a task that was received."""
    found: str = get(f"/deliveries/{deliver('annotation/accepted').delivery_id}")["task_id"]
    return found


def test_a_run_is_listed_with_its_open_follow_ups_and_cost(plan: Plan, get: Get, root: str) -> None:
    assert get("/runs")["data"] == []
    plan("created", source_task_id=root, workflow="w", task_id="child")
    plan("held", source_task_id=root, workflow="w")
    plan("completed", source_task_id=root, workflow="w")
    (run,) = get("/runs")["data"]
    assert (run["task_id"], run["state"], run["open"], run["tasks"]) == (root, "running", 2, 2)
    assert run["workflows"] == ["w"]
    assert set(run["cost"]) == {"spent", "committed", "planned"}
    assert get(f"/runs/{root}") == run
    for query, found in (
        ({"workflow": "w"}, [root]),
        ({"workflow": "other"}, []),
        ({"environment": "test"}, []),
    ):
        assert [one["task_id"] for one in get("/runs", **query)["data"]] == found, query


def test_runs_are_paged(plan: Plan, get: Get, deliver: Deliver) -> None:
    for number in range(3):
        deliver("annotation/accepted", task_id=f"task-{number}")
        plan("held", source_task_id=f"task-{number}")
    first = get("/runs", limit=2)
    second = get("/runs", limit=2, cursor=first["next_cursor"])
    listed = [run["task_id"] for page in (first, second) for run in page["data"]]
    assert listed == ["task-2", "task-1", "task-0"]
    assert second["next_cursor"] is None


def test_an_unknown_run_is_not_found(client: FlaskClient) -> None:
    assert client.get("/api/v1/runs/nosuch").status_code == 404


def test_an_undo_is_counted_first(plan: Plan, client: FlaskClient, get: Get) -> None:
    kept = plan("completed", workflow="w", task_id="done")
    plan("created", workflow="w", task_id="child")
    held = plan("held", workflow="w")
    counted = client.post("/api/v1/follow-ups/cancel/preview", json={"workflow": "w"}).json
    assert (counted["selected"], counted["states"]) == (2, {"created": 1, "held": 1})
    assert "summary" in counted["cost"]
    assert get(f"/follow-ups/{held}")["state"] == "held"
    done = client.post("/api/v1/follow-ups/cancel", json={"workflow": "w"}).json
    assert len(done["decided"]) == 2
    assert kept not in done["decided"]
