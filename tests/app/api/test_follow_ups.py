"""Follow-ups in the API, and decisions about them."""

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update

from models import FollowUp, Job
from pipeline.db.ids import new_id
from pipeline.jobs import kinds
from pipeline.service import Service
from tests.app.api.conftest import POLYGONS, Deliver, Get, Plan, audited
from workers.runner import run_due_jobs


def jobs_of(service: Service, unique_id: str) -> list[str]:
    with service.reader.begin() as connection:
        return list(connection.scalars(select(Job.kind).where(Job.subject == unique_id)))


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


def test_approving_a_held_follow_up_enqueues_its_creation(
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


def test_canceling_a_created_follow_up_enqueues_a_cancellation(
    plan: Plan, client: FlaskClient, service: Service
) -> None:
    unique_id = plan("created", task_id="child")
    answer = client.post(f"/api/v1/follow-ups/{unique_id}/cancel")
    assert (answer.status_code, answer.json["state"]) == (200, "created")
    assert jobs_of(service, unique_id) == [kinds.CANCEL]


def test_retrying_a_refused_follow_up_enqueues_its_creation(
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


# Backfills.


def test_a_workflow_is_run_over_stored_results_after_a_preview(
    client: FlaskClient, deliver: Deliver, workflows_dir: Path, service: Service, get: Get
) -> None:
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    deliver("polygonannotation/polygons")
    path = "/api/v1/workflows/chain/backfills"
    body = {"type": "polygonannotation", "dry_run": True}
    shown = client.post(path, json=body).json
    assert shown["backfill"] is None
    assert shown["preview"]["follow_ups"] == {"created": 1}
    assert shown["preview"]["cost"]["unpriced_tasks"] == 1
    assert shown["preview"]["examples"][0]["type"] == "annotation"
    started = client.post(path, json={"type": "polygonannotation", "limit": 5, "per_minute": 600}).json
    row = started["backfill"]
    assert (row["state"], row["total"], row["requested_by"]) == ("running", 1, "API_TOKEN")
    assert [one["id"] for one in get("/workflows/chain/backfills")["data"]] == [row["id"]]
    assert client.post(f"/api/v1/backfills/{row['id']}/stop").json["state"] == "stopped"
    assert client.post(f"/api/v1/backfills/{row['id']}/stop").status_code == 409
    assert client.post(f"/api/v1/backfills/{row['id']}/resume").json["state"] == "running"
    run_due_jobs(service)
    assert get(f"/backfills/{row['id']}")["state"] == "completed"
    assert client.post("/api/v1/workflows/nosuch/backfills", json={}).status_code == 404
    assert client.get(f"/api/v1/backfills/{new_id()}").status_code == 404
