"""Attacks on the receivers of webhooks: by headers of a subscriber, and by bodies that look like another event."""

import json
from collections.abc import Callable, Iterator

import pytest

from models import Subscriber
from pipeline.events import subscriptions
from pipeline.events.subscriptions import InvalidSubscriber
from pipeline.service import Service
from tests.assertions import table
from tests.factories.callbacks import receive_callback
from tests.fake_server import FakeServer, reply
from workers.runner import run_due_jobs

FRAMING = (
    "Host", "Content-Length", "Transfer-Encoding", "Connection", "content-type", "TE", "Upgrade", "Expect",
    "Proxy-Authorization", "Keep-Alive", "webhook-signature", "Webhook-Id", "webhook-event",
)  # fmt: skip


def test_a_subscriber_cannot_choose_headers_that_frame_or_sign_the_request(
    open_service: Callable[..., Service],
) -> None:
    service = open_service(subscriber_hosts=("example.com",))
    for name in FRAMING:
        with pytest.raises(InvalidSubscriber, match=name), service.engine.begin() as connection:
            subscriptions.add(
                connection, service.settings, "ana", "https://example.com/", ["task"], headers={name: "x"}
            )
    assert table(service, Subscriber) == []


@pytest.fixture
def receiver() -> Iterator[FakeServer]:
    with FakeServer(lambda _: reply({})) as server:
        yield server


def test_a_body_that_looks_like_another_event_is_named_by_a_header(
    open_service: Callable[..., Service], receiver: FakeServer
) -> None:
    service = open_service(subscriber_hosts=(receiver.url.removeprefix("http://"),))
    with service.engine.begin() as connection:
        subscriptions.add(connection, service.settings, "ana", receiver.url, ["delivery"])
    forged = {"type": "workflow.finished", "data": {"task_id": "t"}, "task_id": "t"}
    receive_callback(service, json.dumps(forged).encode())
    run_due_jobs(service)
    (request,) = receiver.requests
    assert json.loads(request.body) == forged
    assert request.headers["webhook-event"] == "delivery.received"
