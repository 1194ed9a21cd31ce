"""Attacks on the receivers of webhooks: by headers of a subscriber, and by bodies that look like another event."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from models import Notification, Subscriber
from pipeline.events import sending, subscriptions
from pipeline.events.subscriptions import InvalidSubscriber, pause_scope
from pipeline.jobs import kinds
from pipeline.jobs.rate_limits import clear_rate_limit
from pipeline.service import Service
from tests.assertions import table
from tests.factories.callbacks import receive_callback
from tests.factories.pipelines import Pipeline
from tests.fake_server import FakeServer, ReceivedRequest, reply
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


def with_a_dozen_notifications(open_pipeline: Callable[..., Pipeline], server: FakeServer) -> Pipeline:
    """Return a pipeline with twelve notifications to send to `server`."""
    chain = open_pipeline(subscriber_hosts=(f"127.0.0.1:{server.port}",))
    with chain.service.engine.begin() as connection:
        subscriptions.add(connection, chain.service.settings, "ana", server.url, ["delivery"])
    for number in range(12):
        receive_callback(chain.service, json.dumps({"task_id": f"t{number}"}).encode())
    return chain


def test_a_receiver_that_does_not_answer_occupies_one_worker_at_a_time(
    open_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dozen notifications, and a receiver whose answer never ends: it is left alone for a while, then gets all of them."""
    answers_now = threading.Event()

    def answer(_: ReceivedRequest) -> Iterator[bytes]:
        if answers_now.is_set():
            yield reply({})
            return
        yield b"HTTP/1.1 200 OK\r\n"
        while not server.wait(0.1):
            yield b"X: "

    with FakeServer(answer) as server:
        chain = with_a_dozen_notifications(open_pipeline, server)
        with monkeypatch.context() as patch:
            patch.setattr(sending, "RESPONSE_TIMEOUT_SECONDS", 0.5)
            chain.work()
        assert len(server.requests) == 1
        unsent = {str(row["id"]) for row in table(chain.service, Notification) if not row["attempts"]}
        waiting = Counter(job["last_error"] for job in chain.jobs() if job["subject"] in unsent)
        assert waiting == {"the receiver does not answer": 11}
        answers_now.set()
        (notification, *_) = table(chain.service, Notification)
        with chain.service.engine.begin() as connection:
            subscriptions.replay(connection, "ana", notification["id"])
        chain.skip_waiting()
        assert {row["state"] for row in table(chain.service, Notification)} == {"delivered"}


def test_a_receiver_that_answers_slowly_rests_between_its_notifications(
    open_pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that accepts each notification just before the time-out would hold a worker for each of them."""
    is_slow = True

    def answer(_: ReceivedRequest) -> bytes:
        if is_slow:
            server.wait(0.3)
        return reply({})

    with FakeServer(answer) as server:
        chain = with_a_dozen_notifications(open_pipeline, server)
        with monkeypatch.context() as patch:
            patch.setattr(sending, "SLOW_SECONDS", 0.2)
            patch.setattr(sending, "REST_FACTOR", 1000)
            chain.work()
        states = Counter(row["state"] for row in table(chain.service, Notification))
        assert states == {"delivered": 1, "pending": 11}
        waiting = Counter(job["last_error"] for job in chain.jobs() if job["kind"] == kinds.NOTIFY)
        assert waiting == {"the receiver answers slowly": 11}
        is_slow = False
        with chain.service.engine.begin() as connection:
            clear_rate_limit(connection, pause_scope(table(chain.service, Subscriber)[0]["id"]))
        chain.skip_waiting()
        assert {row["state"] for row in table(chain.service, Notification)} == {"delivered"}
