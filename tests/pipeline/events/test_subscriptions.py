"""Subscriptions: what may be subscribed to, and by whom."""

from typing import Any

import pytest

from models import Notification, Subscriber
from pipeline.db.ids import new_id
from pipeline.events import subscriptions
from pipeline.events.subscriptions import InvalidSubscriber
from tests.assertions import only, table
from tests.factories.callbacks import boxes, callback
from tests.factories.pipelines import Pipeline
from tests.factories.receivers import Receiver, receive, subscribe


def test_without_a_subscriber_no_notification_is_stored(chain: Pipeline) -> None:
    receive(chain, callback(boxes("car")))
    assert table(chain.service, Notification) == []


def test_single_events_can_be_subscribed_to(chain: Pipeline, receiver: Receiver) -> None:
    secret = subscribe(chain, receiver, "task.accepted")
    receive(chain, callback(boxes("car")))
    receive(
        chain,
        callback(boxes("car"), customer_review_status="accepted", updated_at="2026-01-01T11:00:00.000Z"),
    )
    assert [event["type"] for event in receiver.heard(secret)] == ["task.accepted"]


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


def test_other_events_can_be_selected_for_a_subscriber(chain: Pipeline, receiver: Receiver) -> None:
    secret = subscribe(chain, receiver, "task", filters={"project": ["elsewhere"]})
    receive(chain, callback(boxes("car")))
    subscriber_id = only(chain.service, Subscriber)["id"]
    with chain.service.engine.begin() as connection:
        subscriptions.select_events(connection, "ana", subscriber_id, ["response"], {})
        with pytest.raises(InvalidSubscriber, match="no event is named"):
            subscriptions.select_events(connection, "ana", subscriber_id, [], {})
        with pytest.raises(LookupError):
            subscriptions.select_events(connection, "ana", new_id(), ["task"], {})
    receive(chain, callback(boxes("car", "bus"), updated_at="2026-01-01T11:00:00.000Z"))
    assert [event["type"] for event in receiver.heard(secret)] == ["response.received"]
