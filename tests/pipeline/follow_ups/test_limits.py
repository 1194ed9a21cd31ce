"""Limits: what goes beyond one is held, however many workers plan at once."""

from collections import Counter
from datetime import timedelta

from models import SpendCounter
from pipeline.db.ids import utcnow
from tests.assertions import table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import EACH, Pipeline, asks


def root(number: int) -> str:
    return f"5f1e9b00000000000000{number:04d}"


def test_four_workers_never_go_beyond_a_limit(pipeline: Pipeline) -> None:
    steps = {"each": {**EACH, "limits": {"total": 13}}, "once": asks()}
    pipeline.workflow(steps, limits={"per_day": 20})
    for number in range(10):
        receive_callback(pipeline.service, callback(boxes("car", "car", "car"), task_id=root(number)))
    pipeline.work_with(4)
    rows = pipeline.follow_ups().values()
    counted = Counter((row["step"], row["state"]) for row in rows)
    assert counted["each", "created"] <= 13
    assert counted["each", "created"] + counted["once", "created"] <= 20
    assert counted["each", "created"] + counted["each", "held"] == 30
    granted = {row["counter"]: row["granted"] for row in table(pipeline.service, SpendCounter)}
    assert granted == {
        "w.each": counted["each", "created"],
        "w": counted["each", "created"] + counted["once", "created"],
    }
    tomorrow = f"{utcnow() + timedelta(days=1):%Y-%m-%d}"
    reasons = {row["reason"] for row in rows if row["state"] == "held"}
    assert reasons <= {
        "held by the limit of 13 tasks in all of w.each",
        f"held by the limit of 20 tasks a day of w; released from {tomorrow} 00:00 UTC on",
    }
    assert len(pipeline.at_scale()) == counted["each", "created"] + counted["once", "created"]


def test_a_step_with_a_limit_of_its_own_is_not_bound_by_the_guard_of_ten_thousand(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": {**EACH, "limits": {"per_day": 2}}})
    pipeline.receive(boxes("car", "car", "car"))
    assert Counter(pipeline.states().values()) == {"created": 2, "held": 1}


def test_what_is_too_far_from_the_first_task_is_held(pipeline: Pipeline) -> None:
    again = asks(after={"step": ["ask", "again"]}, limits={"depth": 2})
    pipeline.workflow({"ask": asks(), "again": again})
    pipeline.receive(boxes("car"))
    for _ in range(2):
        pending = [row["task_id"] for row in pipeline.follow_ups().values() if row["state"] == "created"]
        for task_id in pending:
            pipeline.finish(task_id, {"category": "yes"})
    held = [row for row in pipeline.follow_ups().values() if row["state"] == "held"]
    assert [(row["depth"], row["step"]) for row in held] == [(3, "again")]
