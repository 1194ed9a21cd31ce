"""One id can be followed through the log: from a delivery to the task that was created for its follow-up."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from models import Delivery, FollowUp
from tests.assertions import table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import ROOT, Pipeline, asks
from workers import runner

FIELDS = ("delivery_id", "task_id", "follow_up", "created_task_id", "job_kind")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """`lines(event)`: the fields of each line with this event text, in order."""
    caplog.set_level(logging.DEBUG)

    def of(event: str) -> list[dict[str, Any]]:
        records = [vars(record) for record in caplog.records if record.getMessage() == event]
        return [{name: record[name] for name in FIELDS if name in record} for record in records]

    return of  # type: ignore[return-value]


@pytest.mark.parametrize("inline_bytes", [1_000_000, 10], ids=["inline", "parsed by the worker"])
def test_a_callback_can_be_followed_to_the_task_that_it_creates(
    pipeline: Pipeline, lines: Any, inline_bytes: int
) -> None:
    pipeline.workflow({"ask": asks()})
    receipt = receive_callback(pipeline.service, callback(boxes("car")), inline_bytes=inline_bytes)
    pipeline.work()
    (follow_up,) = table(pipeline.service, FollowUp)
    (delivery,) = table(pipeline.service, Delivery)
    delivery_id, unique_id = str(receipt.delivery_id), follow_up["unique_id"]
    assert (str(delivery["id"]), delivery["task_id"]) == (delivery_id, ROOT)

    known = {"task_id": ROOT} if inline_bytes > 10 else {}
    assert lines("delivery received") == [{"delivery_id": delivery_id, **known}]
    parsed = lines("delivery parsed")
    assert parsed == ([] if known else [{"delivery_id": delivery_id, "task_id": ROOT, "job_kind": "parse"}])
    assert lines("follow-ups planned") == [{"delivery_id": delivery_id, "task_id": ROOT, "job_kind": "plan"}]
    assert lines("task created") == [
        {
            "task_id": ROOT,
            "follow_up": unique_id,
            "created_task_id": follow_up["task_id"],
            "job_kind": "create",
        }
    ]
    finished = {line["job_kind"]: line for line in lines("job finished")}
    assert (finished["plan"]["task_id"], finished["create"]["follow_up"]) == (ROOT, unique_id)

    pipeline.finish(follow_up["task_id"])
    assert lines("delivery received")[-1]["task_id"] == follow_up["task_id"]


def test_a_duplicate_is_logged_under_the_first_delivery(pipeline: Pipeline, lines: Any) -> None:
    first = receive_callback(pipeline.service, callback(boxes("car")))
    receive_callback(pipeline.service, callback(boxes("car")))
    assert lines("delivery received") == [{"delivery_id": str(first.delivery_id), "task_id": ROOT}] * 2


def test_a_job_that_fails_is_logged_with_what_it_works_on(
    pipeline: Pipeline, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise ValueError("not today")

    monkeypatch.setitem(runner.HANDLERS, "plan", fail)
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    assert lines("job failed") == [{"task_id": ROOT, "job_kind": "plan"}]
