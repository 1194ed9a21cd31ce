"""What follows from a task is planned once, within limits; what is recalled is taken back; what had to wait is made up for."""

import sys
import types
from collections import Counter
from typing import Any

import pytest

from pipeline.follow_ups import decisions, plan_task
from tests.factories.callbacks import at, boxes
from tests.factories.pipelines import EACH, ROOT, Pipeline, asks


def test_planning_again_and_the_same_callback_again_create_nothing_more(pipeline: Pipeline) -> None:
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


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("our_functions")
    monkeypatch.setitem(sys.modules, "our_functions", module)
    return module


def python(function: str) -> dict[str, Any]:
    return {"after": {"type": "imageannotation"}, "python": f"our_functions:{function}"}


def test_a_function_requests_tasks_under_the_same_guarantees(
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


def test_a_large_fan_out_is_recorded_in_several_transactions(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(plan_task, "FOLLOW_UP_BATCH_SIZE", 10)
    last = {"after": {"step": "each"}, "join": {"wait": "all", "reduce": "majority"}}
    pipeline.workflow({"each": {**EACH, "hold": True}, "last": last})
    pipeline.receive(boxes(*["car"] * 25))
    assert Counter(pipeline.states().values()) == {"held": 25}
    assert pipeline.joins()[f"w.last.{ROOT}"]["expected"] == 25
