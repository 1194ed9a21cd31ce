"""Subscribers in the API: registered, tested, asked for their history, and never shown with what is secret."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.application import create_app
from config import load_settings
from tests.app.api.conftest import TOKEN
from tests.fake_server import FakeServer, reply
from workers.runner import run_due_jobs


@pytest.fixture
def receiver() -> Iterator[FakeServer]:
    with FakeServer(lambda asked: reply()) as peer:
        yield peer


@pytest.fixture
def app(app: Flask, receiver: FakeServer, database_url: str) -> Iterator[Flask]:
    """The application, which may tell the receiver."""
    env = {
        "API_TOKEN": TOKEN,
        "SECRET_KEY": "secret",
        "DATABASE_URL": database_url,
        "SUBSCRIBER_HOSTS": f"127.0.0.1:{receiver.port}",
    }
    made = create_app(load_settings(env))
    yield made
    made.extensions["weighbridge"].engine.dispose()


def test_a_subscriber_is_registered_notified_and_removed(
    client: FlaskClient, app: Flask, receiver: FakeServer
) -> None:
    wanted = {
        "url": f"{receiver.url}/hook",
        "events": ["task", "follow-up.held"],
        "headers": {"x-key": "hush"},
    }
    made = client.post("/api/v1/subscribers", json=wanted)
    assert made.status_code == 201
    assert made.json["secret"].startswith("whsec_")
    assert made.json["headers"] == ["x-key"]
    address = f"/api/v1/subscribers/{made.json['id']}"
    for shown in (client.get(address).json, client.get("/api/v1/subscribers").json["data"][0]):
        assert "secret" not in shown
        assert "hush" not in str(shown)
    assert client.post(f"{address}/test").status_code == 202
    run_due_jobs(app.extensions["weighbridge"])
    (asked,) = receiver.requests
    assert asked.headers["x-key"] == "hush"
    (notification,) = client.get(f"{address}/notifications", query_string={"state": "delivered"}).json["data"]
    assert (notification["event"], notification["attempts"][0]["status"]) == ("test.sent", 200)
    assert client.post(f"/api/v1/notifications/{notification['id']}/replay").json["state"] == "pending"
    run_due_jobs(app.extensions["weighbridge"])
    assert [one.headers["webhook-id"] for one in receiver.requests] == [asked.headers["webhook-id"]] * 2
    selected = client.put(f"{address}/events", json={"events": ["join"], "workflow": ["chain"]}).json
    assert (selected["events"], selected["workflow"], selected["project"]) == (["join"], ["chain"], [])
    refused = client.put(f"{address}/events", json={"events": ["joins"]})
    assert (refused.status_code, client.get(address).json["events"]) == (422, ["join"])
    assert client.post(f"{address}/disable").json["enabled"] is False
    assert client.post(f"{address}/test").status_code == 409
    assert client.post(f"{address}/enable").json["enabled"] is True
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404
    assert client.get("/api/v1/subscribers").json == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"url": "http://169.254.169.254/", "events": ["task"]}, "SUBSCRIBER_HOSTS"),
        ({"url": None, "events": ["task"]}, "url"),
        ({"events": ["task"]}, "url"),
        ({"url": "https://example.com"}, "events"),
    ],
)
def test_what_cannot_be_registered_is_refused_in_words(client: FlaskClient, wanted: dict, said: str) -> None:
    answer = client.post("/api/v1/subscribers", json=wanted)
    assert answer.status_code in (400, 422)
    assert answer.mimetype == "application/problem+json"
    assert said in answer.text


def test_one_that_is_not_known_is_404(client: FlaskClient) -> None:
    unknown_id = "01a21079-e38a-74aa-afab-9e22924afae5"
    for path in (
        f"subscribers/{unknown_id}/enable",
        f"subscribers/{unknown_id}/test",
        f"notifications/{unknown_id}/replay",
    ):
        assert client.post(f"/api/v1/{path}").status_code == 404
    assert (
        client.put(f"/api/v1/subscribers/{unknown_id}/events", json={"events": ["task"]}).status_code == 404
    )
    assert client.delete(f"/api/v1/subscribers/{unknown_id}").status_code == 404
    assert client.get(f"/api/v1/subscribers/{unknown_id}/notifications").status_code == 404
