"""Attacks without a callback key; and on the order and the environment of tasks, by someone who has one."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import insert

from models import Annotation, Artifact, AuditEntry, Delivery, DeliveryBody, FollowUp, Job, Response, Task
from pipeline.db.ids import new_id, utcnow
from pipeline.receive.ordering import CLOCK_WARNING
from pipeline.service import Service
from tests.app.test_callbacks import LIVE, TEST, Post, app, client, count, delivery, payload, post
from tests.assertions import only, stored_rows, table
from tests.factories.callbacks import boxes, callback, receive_by_general_path, receive_callback, task

__all__ = ["app", "client", "post"]

SEGMENTED = {
    "annotations": {"indexedImage": "https://scaleapi-results.s3.amazonaws.com/1.png"},
    "labelMapping": {"car": {"index": 1}},
}
FORGED = [
    callback(boxes("forged", "forged"), metadata={"forged": True}),
    callback(SEGMENTED, type="segmentannotation"),
    callback({"error": "forged"}, status="error", customer_review_status="rejected"),
    callback(boxes("forged"), type=None),
]


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        "wrong",
        "live_ke",
        "live_key2",
        "LIVE_KEY",
        "live_key, newer_live_key",
        "schlüssel",
        "k" * 5000,
    ],
)
def test_without_a_known_key_nothing_is_stored(app: Flask, post: Post, key: str | None) -> None:
    answer = post(payload("annotation/boxes_of_2017.json"), key)
    assert (answer.status_code, answer.headers["Connection"]) == (401, "close")
    assert count(app, Delivery) == 0


def test_two_headers_are_no_key(client: FlaskClient) -> None:
    headers = [("scale-callback-auth", LIVE), ("scale-callback-auth", LIVE)]
    assert client.post("/callbacks/scale", data=b"{}", headers=headers).status_code == 401


def test_a_test_key_for_a_live_task_is_quarantined(app: Flask, post: Post) -> None:
    body = payload("annotation/boxes_of_2017.json")
    post(body)
    answer = post(body, TEST)
    assert (answer.status_code, answer.json["status"]) == (200, "quarantined")
    assert "known as live" in delivery(app, answer.json["delivery_id"]).reason


def without_test_deliveries(service: Service) -> dict[str, Any]:
    rows = stored_rows(service, receipt=True)
    return {
        **rows,
        "deliveries": [row for row in rows["deliveries"] if row["environment"] == "live"],
        "jobs": sorted({row["kind"] for row in rows["jobs"]}),
    }


@pytest.mark.parametrize("forged", FORGED)
def test_a_test_key_never_claims_the_id_of_a_live_task(service: Service, forged: bytes) -> None:
    honest = callback(boxes("car"))
    receive_by_general_path(service, honest)
    expected = without_test_deliveries(service)
    for model in (Delivery, DeliveryBody, Task, Response, Annotation, Artifact, Job):
        with service.engine.begin() as connection:
            connection.execute(model.__table__.delete())  # type: ignore[attr-defined]
    receive_callback(service, forged, "test")
    assert receive_callback(service, honest).status == "processed"
    found = without_test_deliveries(service)
    found["jobs"] = [
        kind for kind in found["jobs"] if kind not in ("describe", "plan")
    ]  # they find nothing to do
    assert found == expected
    (test_delivery,) = [row for row in table(service, Delivery) if row["environment"] == "test"]
    assert (test_delivery["status"], "live delivery" in test_delivery["reason"]) == ("quarantined", True)
    assert [entry["action"] for entry in table(service, AuditEntry)] == ["task.take_over"]


def test_follow_ups_of_the_forged_task_do_not_stand_in_the_way_of_live_ones(service: Service) -> None:
    task_id = task()["task_id"]
    row = {
        "unique_id": f"w.ask.{task_id}",
        "id": new_id(),
        "workflow": "w",
        "workflow_digest": "0",
        "step": "ask",
        "state": "planned",
        "environment": "test",
        "source_task_id": task_id,
        "task_type": "categorization",
        "request": {},
        "planned_at": utcnow(),
    }
    receive_callback(service, callback(boxes("forged")), "test")
    with service.engine.begin() as connection:
        connection.execute(insert(FollowUp).values(row))
    receive_callback(service, callback(boxes("car")))
    assert table(service, FollowUp) == []


@pytest.mark.parametrize("date", ["9999-12-31T23:59:59Z", "2999-01-01T00:00:00+02:00"])
@pytest.mark.parametrize("receive", [receive_callback, receive_by_general_path])
def test_a_date_in_the_future_does_not_make_later_callbacks_stale(
    service: Service, date: str, receive: Any
) -> None:
    receive(service, callback({"category": "forged"}, type="categorization", updated_at=date))
    forged = only(service, Delivery)
    assert (forged["clock"], forged["warnings"]) == (forged["received_at"], [CLOCK_WARNING])
    now = (utcnow() + timedelta(seconds=1)).isoformat()
    receive(service, callback({"category": "true"}, type="categorization", updated_at=now, completed_at=now))
    current = only(service, Task)["response_id"]
    assert {row["id"]: row["answer"] for row in table(service, Response)}[current] == {"category": "true"}


def test_clocks_that_differ_by_hours_still_order_callbacks(service: Service) -> None:
    ahead: datetime = utcnow() + timedelta(hours=20)
    receive_callback(service, callback(boxes("car"), updated_at=ahead.isoformat()))
    delivery = only(service, Delivery)
    assert abs(delivery["clock"] - ahead) < timedelta(milliseconds=1)
    assert delivery["warnings"] is None
