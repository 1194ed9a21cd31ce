"""A 429 or a refused key makes every job that calls Scale wait, whatever it calls, and costs it no attempt."""

import json
from typing import Any

import pytest

from models import RateLimit
from pipeline.db.ids import utcnow
from pipeline.follow_ups import decisions
from pipeline.jobs import kinds
from scale.client import MAX_THROTTLED_SECONDS, THROTTLED_SECONDS
from tests.assertions import table
from tests.factories.callbacks import boxes, receive_callback
from tests.factories.pipelines import ROOT, Pipeline, asks

ASK = f"w.ask.{ROOT}"


def limits(pipeline: Pipeline) -> list[dict[str, Any]]:
    return table(pipeline.service, RateLimit)


def start_create(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))


def start_cancel(pipeline: Pipeline) -> None:
    pipeline.sandbox.clear_faults()
    start_create(pipeline)
    assert pipeline.states() == {ASK: "created"}
    pipeline.sandbox.add_fault("throttled", retry_after=30, on="any")
    with pipeline.service.engine.begin() as connection:
        decisions.cancel(connection, ASK, "ana")
    pipeline.work()


def start_describe(pipeline: Pipeline) -> None:
    receive_callback(pipeline.service, json.dumps({"task_id": ROOT, "status": "completed"}).encode())
    pipeline.work()


@pytest.mark.parametrize(
    ("start", "kind"),
    [(start_create, kinds.CREATE), (start_cancel, kinds.CANCEL), (start_describe, kinds.DESCRIBE)],
)
def test_every_job_that_scale_slows_down_waits_as_long_as_scale_asks(
    pipeline: Pipeline, start: Any, kind: str
) -> None:
    pipeline.sandbox.add_fault("throttled", retry_after=30, on="any")
    start(pipeline)
    (limit,) = limits(pipeline)
    assert (limit["scope"], limit["reason"], limit["seconds"]) == (
        "scale:live",
        "Scale asks to slow down",
        30,
    )
    (job,) = pipeline.jobs()
    assert (job["kind"], job["attempts"], job["state"]) == (kind, 0, "ready")
    assert job["run_at"] > utcnow()


@pytest.mark.parametrize("start", [start_create, start_describe])
def test_a_refused_key_is_tried_again_every_minute(pipeline: Pipeline, start: Any) -> None:
    pipeline.sandbox.add_fault("refused", status=401, on="any")
    start(pipeline)
    (limit,) = limits(pipeline)
    assert limit["seconds"] == 60
    (job,) = pipeline.jobs()
    assert job["attempts"] == 0


def test_a_wait_of_days_is_bounded(pipeline: Pipeline) -> None:
    pipeline.sandbox.add_fault("throttled", retry_after=10_000_000)
    start_create(pipeline)
    (limit,) = limits(pipeline)
    assert limit["seconds"] == MAX_THROTTLED_SECONDS


def test_a_wait_of_no_time_does_not_repeat_the_request_at_once(pipeline: Pipeline) -> None:
    pipeline.sandbox.add_fault("throttled", retry_after=0)
    start_create(pipeline)
    (limit,) = limits(pipeline)
    assert limit["seconds"] == THROTTLED_SECONDS


def test_a_person_who_resumes_creation_ends_the_wait(pipeline: Pipeline) -> None:
    pipeline.sandbox.add_fault("throttled", retry_after=3000, times=1)
    start_create(pipeline)
    assert limits(pipeline)
    with pipeline.service.engine.begin() as connection:
        decisions.resume_creation(connection, "ana")
    pipeline.skip_waiting()
    assert pipeline.states() == {ASK: "created"}
