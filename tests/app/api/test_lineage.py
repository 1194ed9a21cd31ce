"""The lineage of a task in the API: up to the first task and down to all that followed."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert

from models import Join
from pipeline.db.ids import utcnow
from pipeline.service import Service
from tests.app.api.conftest import Deliver, Get, Plan


def test_the_lineage_of_a_task_goes_up_to_the_first_and_down_to_all(
    plan: Plan, deliver: Deliver, get: Get
) -> None:
    deliver("polygonannotation/polygons", task_id="root")
    first = plan("created", source_task_id="root", source_annotation="car-1", depth=1)
    deliver("annotation/accepted", task_id="child", unique_id=first)
    held = plan("held", source_task_id="child", depth=2, step="classes")
    other = plan("failed", source_task_id="root", source_annotation="car-2", reason="no money")

    of_child = get("/tasks/child/lineage")
    assert [task["task_id"] for task in of_child["ancestors"]] == ["root", "child"]
    root, child = of_child["ancestors"]
    assert root["source"] is None
    assert root["attachment"]
    assert child["source"] == {
        "unique_id": first,
        "workflow": "chain",
        "step": "boxes",
        "task_id": "root",
        "annotation": "car-1",
    }
    assert [row["unique_id"] for row in of_child["descendants"]] == [held]

    of_root = get("/tasks/root/lineage")
    assert [(row["unique_id"], row["depth"], row["task_id"]) for row in of_root["descendants"]] == [
        (first, 1, "child"),
        (other, 1, None),
        (held, 2, None),
    ]
    assert of_root["descendants"][0]["task_status"] == "completed"
    assert of_root["run"] == of_child["run"]
    assert of_root["run"]["state"] == "held"
    assert of_root["run"]["counts"] == {"completed": 1, "failed": 1, "held": 1}
    assert of_root["run"]["tasks"] == 2
    of_annotation = get("/tasks/root/lineage", annotation="car-1")
    assert [row["unique_id"] for row in of_annotation["descendants"]] == [first, held]

    task = get("/tasks/child")
    assert task["source"]["task_id"] == "root"
    assert task["source"]["annotation"] == "car-1"
    assert [row["unique_id"] for row in task["follow_ups"]] == [held]


def test_a_run_that_is_over_has_a_duration(plan: Plan, deliver: Deliver, get: Get) -> None:
    deliver("polygonannotation/polygons", task_id="root", created_at="2021-01-01T00:00:00Z")
    unique_id = plan("created", source_task_id="root")
    deliver("annotation/accepted", task_id="child", unique_id=unique_id, updated_at="2026-01-01T00:00:00Z")
    run = get("/tasks/child/lineage")["run"]
    assert run["state"] == "completed"
    assert run["started_at"] == "2021-01-01T00:00:00.000Z"
    assert run["finished_at"] == "2026-01-01T00:00:00.000Z"
    assert run["duration_seconds"] == 1826 * 86400


@pytest.mark.parametrize(
    ("verdict", "state"),
    [(None, "running"), ("hold", "completed"), ("stop", "failed"), ("fire", "completed")],
)
def test_a_join_that_waits_keeps_its_run_open(
    deliver: Deliver, get: Get, service: Service, verdict: str | None, state: str
) -> None:
    deliver("polygonannotation/polygons", task_id="root")
    row = {"id": "chain.vote.root", "workflow": "chain", "step": "vote", "awaited_step": "ask", "expected": 3}
    values = {"source_task_id": "root", "opened_at": utcnow(), "verdict": verdict, "result": {"label": "car"}}
    with service.engine.begin() as connection:
        connection.execute(insert(Join), [{**row, **values}])
    found = get("/tasks/root/lineage")
    assert found["run"]["state"] == state
    assert row.items() <= found["joins"][0].items()
    assert found["joins"][0]["result"] == {"label": "car"}


def test_the_lineage_of_a_task_that_nobody_knows_is_not_found(client: FlaskClient) -> None:
    assert client.get("/api/v1/tasks/nobody/lineage").status_code == 404
