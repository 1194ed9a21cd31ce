"""Recalls: a result that is taken back by Scale cancels or keeps what followed from it."""

from collections import Counter

from pipeline.jobs import kinds, queue
from tests.factories.callbacks import at, boxes, callback, receive_callback
from tests.factories.pipelines import EACH, ROOT, Pipeline


def recall(pipeline: Pipeline, hour: int) -> None:
    pipeline.receive(status="pending", updated_at=at(hour), completed_at=None)


def test_a_recall_cancels_what_is_not_done_and_a_new_response_is_planned_again(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": {**EACH, "on_recall": "cancel"}})
    pipeline.receive(boxes("car", "van"), updated_at=at(10))
    first, second = pipeline.children("each")
    pipeline.finish(first, {"category": "yes"})
    recall(pipeline, 11)
    assert pipeline.states() == {f"w.each.{ROOT}.b0": "completed", f"w.each.{ROOT}.b1": "canceled"}
    assert pipeline.sandbox.task(second)["status"] == "canceled"
    pipeline.receive(boxes("car", "bus"), updated_at=at(12))
    assert pipeline.states() == {f"w.each.{ROOT}.b0": "completed", f"w.each.{ROOT}.b1": "created"}
    third = pipeline.follow_ups()[f"w.each.{ROOT}.b1"]["task_id"]
    assert third != second
    pipeline.finish(third, {"category": "no"})
    assert pipeline.states()[f"w.each.{ROOT}.b1"] == "completed"
    statuses = Counter(task["status"] for task in pipeline.sandbox.tasks())
    assert statuses == {"completed": 2, "canceled": 1}


def test_a_recall_keeps_the_follow_ups_unless_the_step_says_otherwise(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH})
    pipeline.receive(boxes("car"), updated_at=at(10))
    recall(pipeline, 11)
    assert pipeline.states() == {f"w.each.{ROOT}.b0": "created"}


def test_what_was_canceled_for_a_recall_before_it_was_created_is_planned_again(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": {**EACH, "on_recall": "cancel", "hold": True}})
    pipeline.receive(boxes("car"), updated_at=at(10))
    recall(pipeline, 11)
    assert pipeline.states() == {f"w.each.{ROOT}.b0": "canceled"}
    pipeline.receive(boxes("car"), updated_at=at(12))
    assert pipeline.states() == {f"w.each.{ROOT}.b0": "held"}


def test_an_answer_that_comes_before_the_cancellation_is_followed_all_the_same(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": {**EACH, "on_recall": "cancel"}})
    pipeline.receive(boxes("car"), updated_at=at(10))
    (first,) = pipeline.children("each")
    body = callback(status="pending", updated_at=at(11), completed_at=None)
    receive_callback(pipeline.service, body)
    run_plan_only(pipeline)
    receive_callback(pipeline.service, callback(boxes("car"), updated_at=at(12)))
    pipeline.work()
    (row,) = pipeline.follow_ups().values()
    assert row["state"] == "created"
    assert row["task_id"] != first
    assert pipeline.sandbox.task(first)["status"] == "canceled"


def run_plan_only(pipeline: Pipeline) -> None:
    from workers.runner import run_job

    (job_id,) = [row["id"] for row in pipeline.jobs() if row["kind"] == kinds.PLAN]
    job = queue.claim(pipeline.service.engine, 60, job_id=job_id)
    assert job is not None
    run_job(pipeline.service, job)


def test_a_join_over_recalled_results_starts_again(pipeline: Pipeline) -> None:
    last = {"after": {"step": "each"}, "join": {"wait": "all", "reduce": "majority"}}
    pipeline.workflow({"each": {**EACH, "on_recall": "cancel"}, "last": last})
    pipeline.receive(boxes("car", "van"), updated_at=at(10))
    recall(pipeline, 11)
    assert pipeline.joins() == {}
    pipeline.receive(boxes("car", "van"), updated_at=at(12))
    for task_id in list(pipeline.children("each")):
        pipeline.finish(task_id, {"category": "yes"})
    (join,) = pipeline.joins().values()
    assert join["verdict"] == "fire"
