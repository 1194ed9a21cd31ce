"""Deliveries in the API: what came, and taking it once more."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from models import AuditEntry
from pipeline.service import Service
from scale import task_types
from tests.app.api.conftest import Deliver

Get = Callable[..., Any]


def test_a_delivery_says_all_that_the_contract_names(deliver: Deliver, get: Get) -> None:
    receipt = deliver("annotation/accepted", task_id="t")
    deliver("annotation/accepted", task_id="t")
    (listed,) = get("/deliveries")["data"]
    assert listed["id"] == str(receipt.delivery_id)
    assert listed["status"] == "processed"
    assert listed["reason"] is None
    assert listed["event"] == "accepted"
    assert listed["task_id"] == "t"
    assert listed["environment"] == "live"
    assert listed["duplicates"] == 1
    assert listed["size_bytes"] > 1000
    assert listed["received_at"].endswith("Z")
    shown = get(f"/deliveries/{receipt.delivery_id}")
    assert listed.items() <= shown.items()
    assert shown["headers"] == {"User-Agent": "recorded"}
    assert shown["review"] == {"status": "accepted", "comments": ["tight boxes"]}


def test_deliveries_are_listed_newest_first_and_filtered(deliver: Deliver, get: Get) -> None:
    first = deliver("annotation/accepted", task_id="t")
    second = deliver(b"no JSON", "test")
    third = deliver("annotation/recalled", task_id="t", updated_at="2031-01-01T00:00:00Z", kind="imported")

    def found(**query: str) -> list[str]:
        return [delivery["id"] for delivery in get("/deliveries", **query)["data"]]

    ids = [str(receipt.delivery_id) for receipt in (third, second, first)]
    assert found() == ids
    assert found(status="quarantined") == ids[1:2]
    assert found(status="processed") == [ids[0], ids[2]]
    assert found(status="stored") == []
    assert found(task_id="t") == [ids[0], ids[2]]
    assert found(environment="test") == ids[1:2]
    assert found(event="accepted") == ids[2:]
    assert found(kind="imported") == ids[:1]
    page = get("/deliveries", limit=2)
    assert [delivery["id"] for delivery in get("/deliveries", cursor=page["next_cursor"])["data"]] == ids[2:]


def test_the_body_comes_back_byte_for_byte_and_is_no_page(client: FlaskClient, deliver: Deliver) -> None:
    body = b"<script>alert(1)</script>\x00\xff"
    receipt = deliver(body)
    answer = client.get(f"/api/v1/deliveries/{receipt.delivery_id}/body")
    assert answer.data == body
    assert answer.mimetype == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("attachment")


def test_a_replay_brings_in_what_the_code_understands_by_now(
    client: FlaskClient, deliver: Deliver, get: Get, service: Service, monkeypatch: Any
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("of an older version")

    with monkeypatch.context() as patch:
        known = task_types.task_type("annotation")
        patch.setitem(task_types._BY_NAME, "annotation", replace(known, parse=fails))
        receipt = deliver("annotation/accepted", task_id="t")
    assert receipt.status == "quarantined"
    answer = client.post(f"/api/v1/deliveries/{receipt.delivery_id}/replay")
    assert answer.status_code == 200
    assert answer.json["status"] == "processed"
    assert answer.json["changed"]["delivery"] == ["quarantined", "processed"]
    assert answer.json["changed"]["annotation_count"] == [None, 2]
    assert get("/tasks/t")["annotation_count"] == 2
    again = client.post(f"/api/v1/deliveries/{receipt.delivery_id}/replay").json
    assert again["changed"] == {}
    assert get("/tasks/t")["response_count"] == 1
    with service.reader.begin() as connection:
        done = connection.execute(select(AuditEntry.actor, AuditEntry.action, AuditEntry.subject)).all()
    assert done == [("API_TOKEN", "delivery.replay", str(receipt.delivery_id))] * 2


def test_a_replay_rings_for_the_jobs_that_follow(
    client: FlaskClient, deliver: Deliver, monkeypatch: Any
) -> None:
    receipt = deliver("videoannotation/file_of_frames", task_id="t")
    dispatched: list[Any] = []
    monkeypatch.setattr(client.application.extensions["dispatcher"], "dispatch", dispatched.extend)
    client.post(f"/api/v1/deliveries/{receipt.delivery_id}/replay")
    client.post(f"/api/v1/jobs/{receipt.jobs[0]}/retry")
    assert dispatched == [receipt.jobs[0]]


def test_a_delivery_that_nobody_knows_is_not_found(client: FlaskClient) -> None:
    for path in ("", "/body"):
        assert client.get(f"/api/v1/deliveries/{uuid4()}{path}").status_code == 404
    assert client.post(f"/api/v1/deliveries/{uuid4()}/replay").status_code == 404


def test_a_choice_of_deliveries_is_taken_once_more_page_by_page(
    client: FlaskClient, deliver: Deliver, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: Any) -> Any:
        raise ValueError("a mistake")

    known = task_types.task_type("annotation")
    with monkeypatch.context() as broken:
        broken.setitem(task_types._BY_NAME, "annotation", replace(known, parse=mistaken))
        ids = [str(deliver("annotation/accepted", task_id=f"t{n}").delivery_id) for n in range(3)]
    deliver(b"no JSON")
    first = client.post("/api/v1/deliveries/replay?status=quarantined&limit=2").json
    assert [one["delivery_id"] for one in first["data"]] == ids[:2]
    assert first["data"][0]["changed"]["delivery"] == ["quarantined", "processed"]
    rest = client.post(
        f"/api/v1/deliveries/replay?status=quarantined&limit=2&cursor={first['next_cursor']}"
    ).json
    assert [one["status"] for one in rest["data"]] == ["processed", "quarantined"]
    last = client.post(f"/api/v1/deliveries/replay?status=quarantined&cursor={rest['next_cursor']}").json
    assert last == {"data": [], "next_cursor": None}
    with service.reader.begin() as connection:
        assert connection.scalars(select(AuditEntry.action)).all() == ["delivery.replay"] * 4


@pytest.mark.parametrize("query", ["", "?status=quarantined&cursor=none"])
def test_all_deliveries_at_once_are_not_taken_again_and_a_wrong_cursor_is_refused(
    client: FlaskClient, query: str
) -> None:
    assert client.post(f"/api/v1/deliveries/replay{query}").status_code == 400
