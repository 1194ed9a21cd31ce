"""Delivery of notifications: signed, retried with back-off, and never to a host that is not named."""

import json

import pytest
from sqlalchemy import delete, func, select, update
from standardwebhooks.webhooks import Webhook

from models import AuditEntry, Delivery, DeliveryBody, Job, Notification, Subscriber
from pipeline.db.dialect import from_now
from pipeline.db.ids import utcnow
from pipeline.events import subscriptions
from pipeline.jobs import kinds
from tests.assertions import only, table
from tests.factories.callbacks import boxes, callback
from tests.factories.pipelines import Pipeline
from tests.factories.receivers import Receiver, receive, subscribe


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


def test_what_is_not_accepted_is_sent_again_with_the_same_id_and_its_history_kept(
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


@pytest.mark.parametrize("purged", [True, False])
def test_a_body_that_is_not_there_is_not_sent_and_says_why(
    chain: Pipeline, receiver: Receiver, purged: bool
) -> None:
    subscribe(chain, receiver, "delivery")
    receiver.status = 500
    receive(chain, callback(boxes("car")))
    with chain.service.engine.begin() as connection:
        connection.execute(delete(DeliveryBody))
        if purged:
            connection.execute(update(Delivery).values(purged_at=utcnow()))
    receiver.status = 204
    chain.skip_waiting()
    row = only(chain.service, Notification)
    if purged:
        assert (row["state"], row["attempts"][-1]["error"]) == (
            "failed",
            "the body of the delivery was purged",
        )
    else:
        assert row["state"] == "pending"
        assert "was not purged" in only(chain.service, Job)["last_error"]
    assert len(receiver.peer.requests) == 1


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


def test_a_receiver_that_is_gone_is_disabled(chain: Pipeline, receiver: Receiver) -> None:
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


def test_nothing_is_sent_to_a_host_that_is_not_named_any_more(chain: Pipeline, receiver: Receiver) -> None:
    subscribe(chain, receiver, "task")
    with chain.service.engine.begin() as connection:
        connection.execute(update(Subscriber).values(url="http://127.0.0.1:1/"))
    receive(chain, callback(boxes("car")))
    row = only(chain.service, Notification)
    assert row["state"] == "failed"
    assert "127.0.0.1:1 is not among the hosts" in row["attempts"][0]["error"]
