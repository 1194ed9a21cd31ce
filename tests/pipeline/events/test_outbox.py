"""Subscribers hear of what they asked for, once, signed, and again until they take it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import func, select, update
from standardwebhooks.webhooks import Webhook

from models import AuditEntry, Job, Notification, Subscriber
from pipeline.db.dialect import from_now
from pipeline.events import outbox, subscriptions
from pipeline.events.subscriptions import InvalidSubscriber
from pipeline.follow_ups import decisions
from pipeline.jobs import kinds
from pipeline.receive import events
from tests.assertions import only, table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import ROOT, Pipeline, asks
from tests.fake_server import FakeServer, reply

EACH = asks(for_each="annotation")


class Receiver:
    """Somebody else's service that takes webhooks."""

    def __init__(self) -> None:
        self.status, self.headers = 200, dict[str, str]()
        self.peer = FakeServer(lambda asked: reply(status=self.status, **self.headers))
        self.host = f"127.0.0.1:{self.peer.port}"
        self.url = f"{self.peer.url}/hook"

    def heard(self, secret: str) -> list[dict[str, Any]]:
        """What came, each with its signature checked as a receiver checks it."""
        return [Webhook(secret).verify(asked.body, asked.headers) for asked in self.peer.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    with one.peer:
        yield one


@pytest.fixture
def chain(open_pipeline: Callable[..., Pipeline], receiver: Receiver) -> Pipeline:
    return open_pipeline(subscriber_hosts=(receiver.host,))


def subscribe(chain: Pipeline, receiver: Receiver, *events: str, **given: Any) -> str:
    """Register the receiver; its secret."""
    with chain.service.engine.begin() as connection:
        row = subscriptions.add(connection, chain.service.settings, "ana", receiver.url, events, **given)
    return str(row["secret"])


def receive(chain: Pipeline, body: bytes) -> None:
    receive_callback(chain.service, body)
    chain.work()


def test_without_a_subscriber_no_notification_is_stored(chain: Pipeline) -> None:
    receive(chain, callback(boxes("car")))
    assert table(chain.service, Notification) == []


def test_a_task_and_its_response_are_told_once_however_often_they_come(
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


def test_a_delivery_is_passed_on_byte_by_byte_with_the_headers_that_an_older_handler_wants(
    chain: Pipeline, receiver: Receiver
) -> None:
    secret = subscribe(chain, receiver, "delivery", headers={"scale-callback-auth": "the-old-key"})
    body = json.dumps(json.loads(callback(boxes("car", "Fußgänger"))), indent=3, ensure_ascii=False).encode()
    receive(chain, body)
    receive(chain, b'{"odd": ')
    first, second = receiver.peer.requests
    assert (first.body, second.body) == (body, b'{"odd": ')
    assert first.headers["scale-callback-auth"] == "the-old-key"
    Webhook(secret).verify(first.body, first.headers)


def test_follow_ups_are_told_state_by_state(chain: Pipeline, receiver: Receiver) -> None:
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


def test_the_end_of_a_run_is_told_once_after_the_last_of_its_tasks(
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


def test_single_events_can_be_asked_for(chain: Pipeline, receiver: Receiver) -> None:
    secret = subscribe(chain, receiver, "task.accepted")
    receive(chain, callback(boxes("car")))
    receive(
        chain,
        callback(boxes("car"), customer_review_status="accepted", updated_at="2026-01-01T11:00:00.000Z"),
    )
    assert [event["type"] for event in receiver.heard(secret)] == ["task.accepted"]


def test_what_is_not_taken_is_sent_again_with_the_same_id_and_its_history_kept(
    chain: Pipeline, receiver: Receiver
) -> None:
    subscribe(chain, receiver, "task")
    receiver.status = 500
    receive(chain, callback(boxes("car")))
    row = only(chain.service, Notification)
    assert (row["state"], [attempt["status"] for attempt in row["attempts"]]) == ("pending", [500])
    receiver.status = 204
    chain.skip_waiting()
    row = only(chain.service, Notification)
    assert (row["state"], [attempt["error"] for attempt in row["attempts"]]) == (
        "delivered",
        ["the receiver answered 500", None],
    )
    assert len({asked.headers["webhook-id"] for asked in receiver.peer.requests}) == 1
    assert chain.jobs() == []


def test_after_the_last_attempt_a_notification_has_failed_and_can_be_replayed(
    chain: Pipeline, receiver: Receiver
) -> None:
    subscribe(chain, receiver, "task")
    receiver.status = 500
    receive(chain, callback(boxes("car")))
    for _ in range(kinds.MAX_ATTEMPTS[kinds.NOTIFY]):
        chain.skip_waiting()
    row = only(chain.service, Notification)
    assert (row["state"], len(row["attempts"])) == ("failed", kinds.MAX_ATTEMPTS[kinds.NOTIFY])
    assert chain.jobs() == []
    receiver.status = 200
    with chain.service.engine.begin() as connection:
        subscriptions.replay(connection, "ana", row["id"])
    chain.work()
    assert only(chain.service, Notification)["state"] == "delivered"
    assert [entry["action"] for entry in table(chain.service, AuditEntry)] == [
        "subscriber.add",
        "notification.replay",
    ]


def test_a_receiver_that_is_gone_is_told_no_more(chain: Pipeline, receiver: Receiver) -> None:
    subscribe(chain, receiver, "task")
    receiver.status = 410
    receive(chain, callback(boxes("car")))
    row = only(chain.service, Subscriber)
    assert (row["enabled"], row["reason"]) == (False, "the receiver answered 410 Gone")
    receive(chain, callback(boxes("car"), updated_at="2026-01-01T11:00:00.000Z", tags=["x"]))
    assert len(receiver.peer.requests) == 1


def test_a_receiver_that_asks_to_wait_is_left_alone_for_so_long(chain: Pipeline, receiver: Receiver) -> None:
    subscribe(chain, receiver, "task")
    receiver.status, receiver.headers = 429, {"Retry-After": "600"}
    receive(chain, callback(boxes("car")))
    with chain.service.reader.begin() as connection:
        soon = select(func.count()).where(Job.kind == kinds.NOTIFY, Job.run_at < from_now(590))
        assert connection.scalar(soon) == 0


def test_redirects_are_not_followed(chain: Pipeline, receiver: Receiver) -> None:
    subscribe(chain, receiver, "task")
    receiver.status, receiver.headers = 307, {"Location": "http://169.254.169.254/"}
    receive(chain, callback(boxes("car")))
    (attempt,) = only(chain.service, Notification)["attempts"]
    assert attempt["error"] == "the receiver answered 307"


@pytest.mark.parametrize(
    ("url", "events", "given", "why"),
    [
        ("http://169.254.169.254/latest", ["task"], {}, "SUBSCRIBER_HOSTS"),
        ("file:///etc/passwd", ["task"], {}, "SUBSCRIBER_HOSTS"),
        (None, ["tasks"], {}, "no event is called tasks"),
        (None, [], {}, "no event is named"),
        (None, ["task"], {"secret": "short"}, "whsec_"),
        (None, ["task"], {"headers": {"a b": "c"}}, "can't be a header"),
        (None, ["task"], {"headers": {"a": "c\r\nd: e"}}, "can't be a header"),
    ],
)
def test_what_cannot_be_a_subscriber_is_refused_in_words(
    chain: Pipeline, receiver: Receiver, url: str | None, events: list[str], given: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidSubscriber, match=why), chain.service.engine.begin() as connection:
        subscriptions.add(connection, chain.service.settings, "ana", url or receiver.url, events, **given)
    assert table(chain.service, Subscriber) == []


def test_a_host_that_is_named_no_more_is_not_told(chain: Pipeline, receiver: Receiver) -> None:
    subscribe(chain, receiver, "task")
    with chain.service.engine.begin() as connection:
        connection.execute(update(Subscriber).values(url="http://127.0.0.1:1/"))
    receive(chain, callback(boxes("car")))
    row = only(chain.service, Notification)
    assert row["state"] == "failed"
    assert "127.0.0.1:1 is not among the hosts" in row["attempts"][0]["error"]


def test_a_fault_of_ours_in_telling_does_not_stop_a_callback(
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


def test_a_large_body_is_told_of_when_it_was_read(chain: Pipeline, receiver: Receiver) -> None:
    secret = subscribe(chain, receiver, "task", "delivery")
    receive_callback(chain.service, callback(boxes("car")), inline_bytes=10)
    assert table(chain.service, Notification) == []
    chain.work()
    assert [json.loads(asked.body).get("type", "raw") for asked in receiver.peer.requests] == [
        "raw",
        "task.completed",
    ]
    assert receiver.heard(secret)
