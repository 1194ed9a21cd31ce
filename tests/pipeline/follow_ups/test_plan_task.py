"""What follows from a task is planned once, within limits; what is recalled is taken back; what had to wait is made up for."""

import sys
import types
from collections import Counter
from typing import Any

import pytest

from models import SpendCounter
from pipeline.follow_ups import decisions, pauses, plan_task
from pipeline.follow_ups.pauses import replay_missed_of_fixed_files
from pipeline.jobs import kinds, queue
from tests.assertions import table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.pipelines import ROOT, Pipeline, asks

EACH = asks(for_each="annotation")


def at(hour: int) -> str:
    return f"2026-01-01T{hour}:00:00.000Z"


def root(number: int) -> str:
    return f"5f1e9b00000000000000{number:04d}"


def test_looking_again_and_the_same_callback_again_create_nothing_more(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH})
    for hour in (10, 11, 12):
        pipeline.receive(boxes("car", "van"), updated_at=at(hour), customer_review_status="accepted")
    created = Counter(task["unique_id"] for task in pipeline.sandbox.tasks())
    assert created == Counter([f"w.each.{ROOT}.b0", f"w.each.{ROOT}.b1"])


def test_a_step_that_repeats_follows_each_response_once(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(repeat="each_response")})
    for hour, labels in ((10, ["car"]), (11, ["car", "van"]), (12, ["car"])):
        pipeline.receive(boxes(*labels), updated_at=at(hour))
    assert len(pipeline.at_scale()) == 2


# Limits.


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
    reasons = {row["reason"] for row in rows if row["state"] == "held"}
    assert reasons <= {
        "held by the limit of 13 tasks in all of w.each",
        "held by the limit of 20 tasks a day of w",
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


def test_a_held_follow_up_is_created_once_a_person_approves_it(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(hold=True)})
    pipeline.receive(boxes("car"))
    assert pipeline.at_scale() == {}
    with pipeline.service.engine.begin() as connection:
        decisions.approve(connection, f"w.ask.{ROOT}", "ana")
    pipeline.work()
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["decided_by"]) == ("created", "ana")
    assert row["decided_at"] is not None


def test_a_dry_run_is_recorded_and_costs_nothing(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(dry_run=True)})
    pipeline.receive(boxes("car"))
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["reason"]) == ("skipped", "dry run")
    assert pipeline.at_scale() == {}


# Recalls.


def recall(pipeline: Pipeline, hour: int) -> None:
    pipeline.receive(status="pending", updated_at=at(hour), completed_at=None)


def test_a_recall_cancels_what_is_not_done_and_a_new_answer_asks_again(pipeline: Pipeline) -> None:
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


def test_a_recall_keeps_what_was_asked_unless_the_step_says_otherwise(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH})
    pipeline.receive(boxes("car"), updated_at=at(10))
    recall(pipeline, 11)
    assert pipeline.states() == {f"w.each.{ROOT}.b0": "created"}


def test_what_was_taken_back_before_it_was_created_is_planned_again(pipeline: Pipeline) -> None:
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


def test_a_join_over_what_was_taken_back_begins_anew(pipeline: Pipeline) -> None:
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


# Errors.


def test_an_error_is_retried_with_what_the_step_changes(pipeline: Pipeline) -> None:
    on_error = {"retry": 2, "params": {"instruction": "Once more: ${{ error.error }}"}}
    pipeline.workflow({"ask": asks(on_error=on_error)})
    pipeline.receive(boxes("car"))
    for number in range(3):
        (pending,) = [row["task_id"] for row in pipeline.follow_ups().values() if row["state"] == "created"]
        pipeline.sandbox.fail(pending, "message")
        pipeline.tell(pending)
        pipeline.work()
        assert len(pipeline.follow_ups()) == min(3, number + 2)
    assert [key.rpartition(".")[2] for key in pipeline.follow_ups()] == [ROOT, "retry-1", "retry-2"]
    retried = list(pipeline.follow_ups().values())[1]
    assert retried["request"]["instruction"].startswith("Once more: ")
    assert retried["source_task_id"] == ROOT
    assert retried["source_response_id"] is not None
    assert len(pipeline.at_scale()) == 3


def test_another_step_can_take_over_after_an_error(pipeline: Pipeline) -> None:
    other = {
        "create": {"type": "categorization", "params": {**asks()["create"]["params"], "instruction": "Else?"}}
    }
    pipeline.workflow({"ask": asks(on_error={"start": "other"}), "other": other})
    pipeline.receive(boxes("car"))
    (child,) = pipeline.children("ask")
    pipeline.sandbox.fail(child, "message")
    pipeline.tell(child)
    pipeline.work()
    assert pipeline.states() == {f"w.ask.{ROOT}": "error", f"w.other.{child}": "created"}


# What waits.


def test_a_paused_workflow_makes_up_for_what_it_missed(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()}, "one")
    pipeline.workflow({"ask": asks()}, "two")
    with pipeline.service.engine.begin() as connection:
        decisions.pause(connection, "one", "ana")
    pipeline.receive(boxes("car"))
    pipeline.receive(boxes("car"), updated_at=at(11), customer_review_status="accepted")
    assert list(pipeline.states()) == [f"two.ask.{ROOT}"]
    with pipeline.service.engine.begin() as connection:
        assert len(decisions.resume(connection, "one", "ana")) == 1
    pipeline.work()
    assert sorted(pipeline.states()) == [f"one.ask.{ROOT}", f"two.ask.{ROOT}"]


def test_a_join_of_a_paused_workflow_waits_for_its_end(pipeline: Pipeline) -> None:
    last = {"after": {"step": "each"}, "join": {"wait": "all", "reduce": "majority"}}
    pipeline.workflow({"each": EACH, "last": last})
    pipeline.receive(boxes("car"))
    (child,) = pipeline.children("each")
    with pipeline.service.engine.begin() as connection:
        decisions.pause(connection, "w", "ana")
    pipeline.finish(child, {"category": "yes"})
    assert pipeline.joins()[f"w.last.{ROOT}"]["fired_at"] is None
    with pipeline.service.engine.begin() as connection:
        decisions.resume(connection, "w", "ana")
    pipeline.work()
    pipeline.skip_waiting()
    assert pipeline.joins()[f"w.last.{ROOT}"]["verdict"] == "fire"


def test_a_broken_file_makes_up_for_what_it_missed_once_it_is_mended(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()}, "sound")
    pipeline.write("workflow: broken\nsteps: {ask: {after: {typ: imageannotation}}}", "broken")
    pipeline.receive(boxes("car"))
    assert list(pipeline.states()) == [f"sound.ask.{ROOT}"]
    with pipeline.service.engine.begin() as connection:
        assert replay_missed_of_fixed_files(connection, pipeline.service) == []
    pipeline.workflow({"ask": asks()}, "broken")
    with pipeline.service.engine.begin() as connection:
        assert len(replay_missed_of_fixed_files(connection, pipeline.service)) == 1
        assert pauses.replay_missed_of_fixed_files(connection, pipeline.service) == []
    pipeline.work()
    assert sorted(pipeline.states()) == [f"broken.ask.{ROOT}", f"sound.ask.{ROOT}"]


# Functions of the operator's own.


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("our_functions")
    monkeypatch.setitem(sys.modules, "our_functions", module)
    return module


def python(function: str) -> dict[str, Any]:
    return {"after": {"type": "imageannotation"}, "python": f"our_functions:{function}"}


def test_a_function_asks_for_tasks_under_the_same_guarantees(
    pipeline: Pipeline, functions: types.ModuleType
) -> None:
    question = {"instruction": "?", "attachment_type": "text", "categories": ["yes", "no"]}

    def each_label(view: Any) -> list[dict[str, Any]]:
        labels = sorted({annotation["label"] for annotation in view.annotations})
        return [
            {"type": "categorization", "key": label, "params": {**question, "attachment": label}}
            for label in labels
        ]

    functions.each_label = each_label  # type: ignore[attr-defined]
    pipeline.workflow({"ask": python("each_label")})
    pipeline.receive(boxes("car", "van", "car"))
    pipeline.receive(boxes("car", "van", "car"), updated_at=at(11), customer_review_status="accepted")
    assert sorted(pipeline.at_scale()) == [f"w.ask.{ROOT}.car", f"w.ask.{ROOT}.van"]


@pytest.mark.parametrize(
    "answer", [{"a": 1}, [{"type": "categorization"}], [{"type": "x", "params": {"a": object()}}], 7]
)
def test_a_function_that_answers_nonsense_is_skipped_and_the_other_workflows_go_on(
    pipeline: Pipeline, functions: types.ModuleType, answer: Any
) -> None:
    functions.odd = lambda view: answer  # type: ignore[attr-defined]
    pipeline.workflow({"odd": python("odd")}, "odd")
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    states = pipeline.states()
    assert states == {f"odd.odd.{ROOT}": "skipped", f"w.ask.{ROOT}": "created"}
    assert pipeline.follow_ups()[f"odd.odd.{ROOT}"]["reason"].startswith("our_functions:odd raised")


def test_a_fault_of_our_own_in_one_workflow_keeps_the_others_going_and_the_job_waiting(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:

    plan = plan_task.plan

    def fails(view: Any, workflow: Any, prefix: str) -> Any:
        if workflow.name == "odd":
            raise RuntimeError("ours")
        return plan(view, workflow, prefix)

    monkeypatch.setattr(plan_task, "plan", fails)
    pipeline.workflow({"ask": asks()}, "odd")
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    assert pipeline.states() == {f"w.ask.{ROOT}": "created"}
    (job,) = pipeline.jobs()
    assert (job["kind"], job["last_error"]) == ("plan", "RuntimeError: ours")
    monkeypatch.setattr(plan_task, "plan", plan)
    pipeline.skip_waiting()
    assert sorted(pipeline.states()) == [f"odd.ask.{ROOT}", f"w.ask.{ROOT}"]


# Large plans.


def test_a_large_fan_out_is_recorded_in_several_transactions(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(plan_task, "FOLLOW_UP_BATCH_SIZE", 10)
    last = {"after": {"step": "each"}, "join": {"wait": "all", "reduce": "majority"}}
    pipeline.workflow({"each": {**EACH, "hold": True}, "last": last})
    pipeline.receive(boxes(*["car"] * 25))
    assert Counter(pipeline.states().values()) == {"held": 25}
    assert pipeline.joins()[f"w.last.{ROOT}"]["expected"] == 25
