"""Follow-ups, workflows, the switches and the lineage in the API."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, select, update

from models import FollowUp, Job, Join
from pipeline.db.ids import new_id, utcnow
from pipeline.jobs import kinds
from pipeline.jobs.rate_limits import set_rate_limit
from pipeline.jobs.scale_limits import scope
from pipeline.service import Service
from tests.app.api.conftest import Deliver
from workers.runner import run_due_jobs

Get = Callable[..., Any]
Plan = Callable[..., str]

POLYGONS = """
workflow: chain
steps:
  boxes:
    after: {type: polygonannotation}
    create:
      type: annotation
      params: {instruction: Draw, attachment_type: image, attachment: "${{ task.params.attachment }}",
               objects_to_annotate: [car], with_labels: true, layers: "${{ layers }}"}
"""


@pytest.fixture
def plan(service: Service) -> Plan:
    """`plan("held")` → the unique_id of a follow-up in that state."""

    def plan(state: str = "planned", **values: Any) -> str:
        row = {
            "unique_id": f"chain.boxes.{new_id().hex}",
            "id": new_id(),
            "workflow": "chain",
            "workflow_digest": "0" * 64,
            "step": "boxes",
            "state": state,
            "environment": "live",
            "source_task_id": "source",
            "task_type": "annotation",
            "request": {"instruction": "Draw"},
            "planned_at": utcnow(),
            **values,
        }
        with service.engine.begin() as connection:
            connection.execute(insert(FollowUp), [row])
        return str(row["unique_id"])

    return plan


def jobs_of(service: Service, unique_id: str) -> list[str]:
    with service.reader.begin() as connection:
        return list(connection.scalars(select(Job.kind).where(Job.subject == unique_id)))


def audited(get: Get, **query: str) -> list[tuple[str, str, str]]:
    """Oldest first."""
    entries = get("/audit", **query)["data"]
    return [(entry["actor"], entry["action"], entry["subject"]) for entry in reversed(entries)]


def test_a_follow_up_is_listed_and_shown_with_its_request(plan: Plan, get: Get) -> None:
    held = plan("held", reason="the step says hold", source_annotation="car-1")
    created = plan("created", task_id="child", environment="test", workflow="other", step="classes")
    assert [row["unique_id"] for row in get("/follow-ups")["data"]] == [created, held]
    for query, found in (
        ({"state": "held"}, [held]),
        ({"workflow": "other"}, [created]),
        ({"step": "boxes"}, [held]),
        ({"source_task_id": "source"}, [created, held]),
        ({"task_id": "child"}, [created]),
        ({"environment": "live"}, [held]),
        ({"state": "failed"}, []),
    ):
        assert [row["unique_id"] for row in get("/follow-ups", **query)["data"]] == found, query
    shown = get(f"/follow-ups/{held}")
    assert shown["request"] == {"instruction": "Draw"}
    assert shown["reason"] == "the step says hold"
    assert shown["source_annotation"] == "car-1"
    assert shown["decided_by"] is None


def test_approving_a_held_follow_up_asks_for_its_creation(
    plan: Plan, client: FlaskClient, service: Service, get: Get
) -> None:
    unique_id = plan("held", reason="limit of 10,000 tasks a day", reason_code="limit")
    answer = client.post(f"/api/v1/follow-ups/{unique_id}/approve")
    assert answer.status_code == 200
    assert (answer.json["state"], answer.json["reason"]) == ("planned", None)
    assert answer.json["decided_by"] == "API_TOKEN"
    assert answer.json["decided_at"].endswith("Z")
    assert jobs_of(service, unique_id) == [kinds.CREATE]
    assert audited(get) == [("API_TOKEN", "follow-up.approve", unique_id)]


@pytest.mark.parametrize("state", ["held", "planned"])
def test_canceling_a_follow_up_that_was_not_created_ends_it(
    plan: Plan, client: FlaskClient, service: Service, state: str
) -> None:
    unique_id = plan(state)
    answer = client.post(f"/api/v1/follow-ups/{unique_id}/cancel")
    assert (answer.status_code, answer.json["state"]) == (200, "canceled")
    assert answer.json["reason"] == "canceled by API_TOKEN"
    assert jobs_of(service, unique_id) == []


def test_canceling_a_created_follow_up_asks_scale_through_a_job(
    plan: Plan, client: FlaskClient, service: Service
) -> None:
    unique_id = plan("created", task_id="child")
    answer = client.post(f"/api/v1/follow-ups/{unique_id}/cancel")
    assert (answer.status_code, answer.json["state"]) == (200, "created")
    assert jobs_of(service, unique_id) == [kinds.CANCEL]


def test_retrying_a_refused_follow_up_asks_for_it_again(
    plan: Plan, client: FlaskClient, service: Service
) -> None:
    unique_id = plan("failed", reason="Scale refused it with 400: no money", reason_code="refused")
    answer = client.post(f"/api/v1/follow-ups/{unique_id}/retry")
    assert (answer.status_code, answer.json["state"], answer.json["reason"]) == (200, "planned", None)
    assert jobs_of(service, unique_id) == [kinds.CREATE]


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("planned", "approve"),
        ("created", "approve"),
        ("canceled", "approve"),
        ("completed", "cancel"),
        ("canceled", "cancel"),
        ("skipped", "cancel"),
        ("completed", "retry"),
        ("held", "retry"),
    ],
)
def test_a_decision_that_does_not_fit_changes_nothing(
    plan: Plan, client: FlaskClient, service: Service, get: Get, state: str, action: str
) -> None:
    unique_id = plan(state)
    answer = client.post(f"/api/v1/follow-ups/{unique_id}/{action}")
    assert answer.status_code == 409
    assert state in answer.json["detail"]
    shown = client.get(f"/api/v1/follow-ups/{unique_id}").json
    assert (shown["state"], shown["decided_by"]) == (state, None)
    assert jobs_of(service, unique_id) == []
    assert audited(get) == []


def test_a_follow_up_that_nobody_knows_is_not_found(client: FlaskClient) -> None:
    assert client.get("/api/v1/follow-ups/a.b.c").status_code == 404
    for action in ("approve", "cancel", "retry"):
        assert client.post(f"/api/v1/follow-ups/a.b.c/{action}").status_code == 404


def test_workflow_files_are_listed_with_what_is_wrong_in_them(
    workflows_dir: Path, get: Get, client: FlaskClient
) -> None:
    (workflows_dir / "broken.yaml").write_text("workflow: broken\nsteps: {}\n")
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    broken, chain = get("/workflows")["data"]
    assert (broken["name"], broken["broken"], broken["digest"]) == ("broken", True, None)
    assert broken["problems"][0]["message"]
    assert broken["problems"][0]["line"] == 2
    assert (chain["name"], chain["broken"], chain["problems"], chain["steps"]) == (
        "chain",
        False,
        [],
        ["boxes"],
    )
    assert len(chain["digest"]) == 64
    assert chain["path"].endswith("chain.yaml")
    assert chain["paused"] is False


def test_a_workflow_is_paused_and_resumed(
    workflows_dir: Path, get: Get, client: FlaskClient, service: Service
) -> None:
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    assert client.post("/api/v1/workflows/chain/pause").json["paused"] is True
    assert client.post("/api/v1/workflows/chain/pause").json["paused"] is True
    assert get("/workflows")["data"][0]["paused"] is True
    assert client.post("/api/v1/workflows/chain/resume").json["paused"] is False
    assert get("/workflows")["data"][0]["paused"] is False
    assert audited(get) == [
        ("API_TOKEN", "workflow.pause", "chain"),
        ("API_TOKEN", "workflow.resume", "chain"),
    ]
    assert audited(get, action="workflow.pause") == [("API_TOKEN", "workflow.pause", "chain")]
    assert audited(get, subject="none") == audited(get, actor="nobody") == []
    assert client.post("/api/v1/workflows/none/pause").status_code == 404


def test_creating_is_stopped_and_started(get: Get, client: FlaskClient) -> None:
    running = get("/creating")
    assert running == {
        "stopped": False,
        "stopped_by": None,
        "stopped_at": None,
        "reason": None,
        "environments": [],
        "pauses": [],
    }
    stopped = client.post("/api/v1/creating/stop").json
    assert (stopped["stopped"], stopped["stopped_by"]) == (True, "API_TOKEN")
    assert stopped["stopped_at"].endswith("Z")
    assert get("/creating") == stopped
    assert client.post("/api/v1/creating/start").json["stopped"] is False


def test_a_pause_that_scale_asked_for_is_shown_until_it_is_over(get: Get, service: Service) -> None:
    def ask_to_wait(seconds: float) -> None:
        with service.engine.begin() as connection:
            set_rate_limit(connection, scope("live"), "Scale asks to slow down", seconds)

    ask_to_wait(600)
    (pause,) = get("/creating")["pauses"]
    assert (pause["environment"], pause["reason"]) == ("live", "Scale asks to slow down")
    assert pause["until"].endswith("Z")
    ask_to_wait(-1)
    assert get("/creating")["pauses"] == []


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


def test_what_would_follow_from_a_task_is_told_and_nothing_is_written(
    deliver: Deliver, get: Get, service: Service, workflows_dir: Path, client: FlaskClient
) -> None:
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    deliver("polygonannotation/polygons", task_id="root")
    (one,) = get("/tasks/root/plan")["data"]
    assert (one["unique_id"], one["state"], one["type"]) == ("chain.boxes.root", "created", "annotation")
    assert one["request"]["unique_id"] == "chain.boxes.root"
    (explanation,) = get("/tasks/root/explain", workflow="chain")["data"]
    assert {condition["name"]: condition["held"] for condition in explanation["conditions"]}[
        "after.type"
    ] is True
    assert explanation["follow_ups"][0]["state"] is None
    with service.reader.begin() as connection:
        assert connection.scalars(select(FollowUp.unique_id)).all() == []
    assert client.get("/api/v1/tasks/nobody/plan").status_code == 404
    assert client.get("/api/v1/tasks/root/explain?workflow=none").status_code == 404


def test_many_follow_ups_are_decided_about_in_one_request(client: FlaskClient, plan: Plan, get: Get) -> None:
    first, second, third = (plan("held") for _ in range(3))
    created = plan("created", task_id="child")
    named = client.post("/api/v1/follow-ups/approve", json={"unique_ids": [first, created, "nosuch"]}).json
    assert named["decided"] == [first]
    assert set(named["errors"]) == {created, "nosuch"}
    oldest = client.post("/api/v1/follow-ups/approve", json={"workflow": "chain", "limit": 1}).json
    assert oldest == {"decided": [second], "errors": {}}
    sampled = client.post("/api/v1/follow-ups/cancel", json={"step": "boxes", "sample": 2}).json
    assert len(sampled["decided"]) == 2
    assert set(sampled["decided"]) <= {first, second, third, created}
    assert client.post("/api/v1/follow-ups/cancel", json={"since": "2099-01-01"}).json["decided"] == []


@pytest.mark.parametrize(
    "body", [{}, {"limit": 5}, {"unique_ids": ["a"], "workflow": "chain"}, {"unique_ids": []}]
)
def test_a_selection_that_is_empty_or_ambiguous_is_refused(client: FlaskClient, body: dict[str, Any]) -> None:
    assert client.post("/api/v1/follow-ups/approve", json=body).status_code in (400, 422)


# Planning again.


@pytest.fixture
def skipped(deliver: Deliver, workflows_dir: Path, service: Service) -> str:
    """The unique_id of a follow-up that a dry run has skipped, of a file that has changed since."""
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    deliver("polygonannotation/polygons")
    run_due_jobs(service)
    with service.engine.begin() as connection:
        columns = {"state": "skipped", "reason": "dry run", "reason_code": "dry_run", "request": {"a": 1}}
        connection.execute(update(FollowUp).values(**columns))
        return connection.scalars(select(FollowUp.unique_id)).one()


def test_a_skipped_follow_up_is_planned_again_after_a_preview(
    client: FlaskClient, skipped: str, get: Get
) -> None:
    path = f"/api/v1/follow-ups/{skipped}/replan"
    shown = client.post(path, json={"dry_run": True}).json
    assert (shown["state"], shown["refused"]) == ("skipped", None)
    (new,) = shown["follow_ups"]
    assert (new["unique_id"], new["type"]) == (skipped, "annotation")
    assert {"path": "a", "before": 1, "after": "(absent)"} in new["changes"]
    assert get(f"/follow-ups/{skipped}")["state"] == "skipped"
    assert client.post(path, json={}).json["refused"] is None
    assert get(f"/follow-ups/{skipped}")["state"] == "held"  # no API key is set
    again = client.post(path, json={})
    assert again.status_code == 200  # the request is the same; a missing setting still holds it
    assert audited(get)[0] == ("API_TOKEN", "follow-up.replan", skipped)
    assert client.post("/api/v1/follow-ups/nosuch/replan", json={}).status_code == 404


def test_many_are_planned_again_in_one_request(client: FlaskClient, skipped: str, plan: Plan) -> None:
    created = plan("created", task_id="child")
    body = {"unique_ids": [skipped, created, "nosuch"], "dry_run": True}
    shown = {
        one["unique_id"]: one for one in client.post("/api/v1/follow-ups/replan", json=body).json["data"]
    }
    assert shown[skipped]["refused"] is None
    assert shown[created]["refused"].startswith("the follow-up is created; replan takes")
    assert shown["nosuch"]["refused"] == "no follow-up nosuch is known"
    assert client.post(f"/api/v1/follow-ups/{created}/replan", json={}).status_code == 409
    (done,) = client.post("/api/v1/follow-ups/replan", json={"workflow": "chain", "limit": 5}).json["data"]
    assert (done["unique_id"], done["refused"]) == (skipped, None)
    assert client.post("/api/v1/follow-ups/replan", json={"state": ["skipped"]}).status_code == 400
    refused = client.post("/api/v1/follow-ups/replan", json={"workflow": "w", "state": ["created"]})
    assert refused.status_code == 400
