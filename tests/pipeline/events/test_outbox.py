"""Subscribers hear of what they asked for, once, signed, and again until they take it."""

import json

import pytest

from models import Notification, Subscriber
from pipeline.events import outbox
from pipeline.follow_ups import decisions
from pipeline.receive import events
from tests.assertions import only, table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import EACH, ROOT, Pipeline, asks
from tests.factories.receivers import Receiver, receive, subscribe


def test_a_task_and_its_response_are_published_once_however_often_they_come(
    chain: Pipeline, receiver: Receiver
) -> None:
    secret = subscribe(chain, receiver, "task", "response")
    for _ in range(3):
        receive(chain, callback(boxes("car"), status="completed"))
    task, response = receiver.heard(secret)
    assert (task["type"], task["data"]["task_id"], task["data"]["status"]) == (
        "task.completed",
        ROOT,
        "completed",
    )
    assert (response["type"], response["data"]["annotation_count"]) == ("response.received", 1)
    assert task["timestamp"].endswith("Z")
    receive(
        chain,
        callback(boxes("car"), customer_review_status="accepted", updated_at="2026-01-01T11:00:00.000Z"),
    )
    assert [event["type"] for event in receiver.heard(secret)[2:]] == ["task.accepted"]


def test_follow_ups_are_published_state_by_state(chain: Pipeline, receiver: Receiver) -> None:
    secret = subscribe(chain, receiver, "follow-up")
    chain.workflow({"ask": asks(hold=True)})
    receive(chain, callback(boxes("car")))
    with chain.service.engine.begin() as connection:
        decisions.approve(connection, f"w.ask.{ROOT}", "ana")
    chain.work()
    (child,) = chain.children("ask")
    chain.sandbox.complete(child, {"category": "yes"})
    task = chain.sandbox.task(child)
    body = json.dumps({"task": task, "task_id": child, "response": task["response"]}).encode()
    receive(chain, body)
    receive(chain, body)
    events = [(event["type"], event["data"]["unique_id"]) for event in receiver.heard(secret)]
    states = ["held", "planned", "created", "completed"]
    assert events == [(f"follow-up.{state}", f"w.ask.{ROOT}") for state in states]


def test_the_end_of_a_run_is_published_once_after_the_last_of_its_tasks(
    chain: Pipeline, receiver: Receiver
) -> None:
    secret = subscribe(chain, receiver, "workflow")
    last = {"after": {"step": "each"}, "join": {"wait": "all", "reduce": "majority"}}
    chain.workflow({"each": EACH, "last": {**last, "create": asks()["create"]}})
    receive(chain, callback(boxes("car", "van")))
    children = list(chain.children("each"))
    for child in children:
        chain.finish(child, {"category": "yes"})
        assert receiver.peer.requests == []
    (summary,) = chain.children("last")
    chain.finish(summary, {"category": "yes"})
    (event,) = receiver.heard(secret)
    assert event["type"] == "workflow.finished"
    data = event["data"]
    assert (data["task_id"], data["workflows"], data["state"], data["tasks"]) == (ROOT, ["w"], "completed", 4)
    assert data["counts"] == {"completed": 3}
    chain.tell(summary)
    chain.work()
    assert len(receiver.peer.requests) == 1


def test_a_run_that_nothing_followed_is_no_run(chain: Pipeline, receiver: Receiver) -> None:
    subscribe(chain, receiver, "workflow")
    chain.workflow({"ask": asks(when="length(annotations) > `5`")})
    receive(chain, callback(boxes("car")))
    assert receiver.peer.requests == []


def test_an_error_of_ours_in_publishing_does_not_stop_a_callback(
    chain: Pipeline, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(chain, receiver, "task")
    monkeypatch.setattr(events, "publish", lambda *given, **more: 1 / 0)
    receipt = receive_callback(chain.service, callback(boxes("car")))
    assert receipt.status == "processed"


def test_a_person_can_send_a_test(chain: Pipeline, receiver: Receiver) -> None:
    secret = subscribe(chain, receiver, "workflow")
    row = only(chain.service, Subscriber)
    with chain.service.engine.begin() as connection:
        outbox.send_test(connection, "ana", row["id"])
    chain.work()
    assert [event["type"] for event in receiver.heard(secret)] == ["test.sent"]


def test_a_large_body_is_published_when_it_was_parsed(chain: Pipeline, receiver: Receiver) -> None:
    secret = subscribe(chain, receiver, "task", "delivery")
    receive_callback(chain.service, callback(boxes("car")), inline_bytes=10)
    assert table(chain.service, Notification) == []
    chain.work()
    assert [json.loads(asked.body).get("type", "raw") for asked in receiver.peer.requests] == [
        "raw",
        "task.completed",
    ]
    assert receiver.heard(secret)
