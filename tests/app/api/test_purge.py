"""The API of purging, and what every other call says of what was purged."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from pipeline.access.tokens import issue
from pipeline.service import Service
from tests.app.api.conftest import Deliver

EVERYTHING = ["bodies", "artifacts", "rows"]


@pytest.fixture
def task_id(deliver: Deliver, get: Callable[..., Any]) -> str:
    receipt = deliver("annotation/accepted")
    found: str = get(f"/deliveries/{receipt.delivery_id}")["task_id"]
    return found


def test_a_task_is_counted_first_and_purged_when_asked(
    client: FlaskClient, get: Callable[..., Any], task_id: str
) -> None:
    asked = {"task_ids": [task_id], "classes": EVERYTHING}
    counted = client.post("/api/v1/purge", json=asked).json
    assert (counted["dry_run"], counted["tasks"]) == (True, [task_id])
    assert get(f"/tasks/{task_id}")["purged_at"] is None
    done = client.post("/api/v1/purge", json={**asked, "dry_run": False}).json
    assert done["counts"] == counted["counts"]
    assert done["counts"]["rows"]["count"] == 1


def test_what_was_purged_is_gone_and_says_when(
    client: FlaskClient, get: Callable[..., Any], task_id: str
) -> None:
    before = get(f"/tasks/{task_id}")
    client.post("/api/v1/purge", json={"task_ids": [task_id], "classes": EVERYTHING, "dry_run": False})
    task = get(f"/tasks/{task_id}")
    assert task["purged_at"].endswith("Z")
    for name in ("status", "type", "project", "response_count", "annotation_count", "created_at"):
        assert task[name] == before[name]
    assert (task["params"], task["metadata"], task["answer"]) == (None, None, None)
    (version,) = get(f"/tasks/{task_id}/responses")["data"]
    assert version["response"] is None
    (delivery,) = get("/deliveries", task_id=task_id)["data"]
    assert delivery["purged_at"].endswith("Z")
    for path in (
        f"/tasks/{task_id}/annotations",
        f"/tasks/{task_id}/responses/1/content",
        f"/deliveries/{delivery['id']}/body",
    ):
        answer = client.get(f"/api/v1{path}")
        assert (answer.status_code, answer.content_type) == (410, "application/problem+json")
        assert "was purged on" in answer.json["detail"]
    replayed = client.post(f"/api/v1/deliveries/{delivery['id']}/replay")
    assert replayed.status_code == 409
    assert "purged" in replayed.json["detail"]
    assert client.post("/api/v1/deliveries/replay?status=processed").json["data"] == []


def test_a_purge_needs_the_scope_admin_and_a_known_task(
    client: FlaskClient, service: Service, task_id: str
) -> None:
    with service.engine.begin() as connection:
        token = issue(connection, "op", ["read", "operate"], actor="ana")
    asked = {"task_ids": [task_id], "classes": ["rows"]}
    refused = client.post("/api/v1/purge", json=asked, headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 403
    assert "admin" in refused.json["detail"]
    assert client.post("/api/v1/purge", json={**asked, "task_ids": ["nosuch"]}).status_code == 404
    assert client.post("/api/v1/purge", json={**asked, "classes": ["everything"]}).status_code == 400
