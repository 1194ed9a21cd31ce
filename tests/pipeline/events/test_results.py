"""Subscribers choose events by workflow, step and project, and receive results with them."""

import json
from typing import Any

import pytest
from flask import Flask

from app.application import create_app
from pipeline.events import results
from pipeline.events.subscriptions import Subscription
from tests.factories.callbacks import boxes, callback
from tests.factories.pipelines import ROOT, Pipeline, asks
from tests.factories.receivers import Receiver, receive, subscribe

NO_ID = None


@pytest.mark.parametrize(
    ("filters", "about", "is_sent"),
    [
        ({}, {}, True),
        ({"workflow": ["w"]}, {"workflow": ("w",)}, True),
        ({"workflow": ["w"]}, {"workflow": {"v", "w"}}, True),
        ({"workflow": ["w"]}, {"workflow": ("v",)}, False),
        ({"workflow": ["w"]}, {}, False),
        ({"project": ["p"]}, {"project": (None,)}, False),
        ({"workflow": ["w"], "step": ["a", "b"]}, {"workflow": ("w",), "step": ("b",)}, True),
        ({"workflow": ["w"], "step": ["a", "b"]}, {"workflow": ("w",), "step": ("c",)}, False),
    ],
)
def test_an_event_passes_every_filter(filters: Any, about: Any, is_sent: bool) -> None:
    assert Subscription(NO_ID, ("task",), filters).matches("task.completed", about) is is_sent


def test_subscribers_choose_by_workflow_step_and_project(chain: Pipeline, receiver: Receiver) -> None:
    everything = ("task", "follow-up.created", "workflow", "join", "delivery")
    secrets = {
        name: subscribe(chain, receiver, *everything, filters=filters, headers={"For": name})
        for name, filters in {
            "ours": {"workflow": ["w"]},
            "other": {"workflow": ["v"], "step": ["ask"]},
            "street": {"project": ["street"]},
        }.items()
    }
    chain.workflow({"ask": asks()})
    receive(chain, callback(boxes("car"), project="street"))
    (child,) = chain.children("ask")
    chain.finish(child, {"category": "yes"})
    heard: dict[str, list[str]] = {name: [] for name in secrets}
    for asked in receiver.peer.requests:
        heard[asked.headers["for"]].append(asked.headers["webhook-event"])
    assert heard["other"] == []
    assert sorted(heard["ours"]) == [
        "delivery.received", "follow-up.created", "task.completed", "workflow.finished",
    ]  # fmt: skip
    assert sorted(heard["street"]) == ["delivery.received", "task.completed", "workflow.finished"]


@pytest.mark.parametrize("max_characters", [0, 16 * 1024], ids=["in pieces", "at once"])
def test_a_small_result_comes_with_the_event_and_a_large_one_as_a_link(
    chain: Pipeline, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, max_characters: int
) -> None:
    secret = subscribe(chain, receiver, "task", with_result=True)
    receive(chain, callback(boxes("car", "van")))
    (event,) = receiver.heard(secret)
    result = event["data"]["result"]
    assert (result["response_number"], result["url"]) == (1, None)
    assert [one["label"] for one in result["annotations"]] == ["car", "van"]
    monkeypatch.setattr(results, "MAX_RESULT_ANNOTATIONS", 1)
    monkeypatch.setattr(results, "PAGE_SIZE", 1)
    monkeypatch.setattr(results, "MAX_VALUE_CHARACTERS", max_characters)
    receive(
        chain,
        callback(
            boxes("car", "van"), customer_review_status="accepted", updated_at="2026-01-01T11:00:00.000Z"
        ),
    )
    linked = receiver.heard(secret)[-1]["data"]["result"]
    assert (linked["annotations"], linked["response_number"]) == (None, 1)
    app: Flask = create_app(chain.service.settings)
    client = app.test_client()
    path = linked["url"].removeprefix(chain.service.settings.public_url)
    content = json.loads(client.get(path).data)
    assert content == {
        "task_id": ROOT, "response_number": 1, "answer": result["answer"], "error": None, "annotations": result["annotations"],
    }  # fmt: skip
    assert client.get(f"{path}x").status_code == 404
    monkeypatch.setattr(results, "LINK_SECONDS", -1)
    assert client.get(path).status_code == 410
    app.extensions["weighbridge"].engine.dispose()
