"""Joins: the step after a fan-out runs once, whichever task is completed last."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from models import Join
from pipeline.db.dialect import from_now
from pipeline.follow_ups import joins as joins_module
from tests.factories.callbacks import boxes, receive_callback
from tests.factories.pipelines import EACH, ROOT, Pipeline
from workflows.planning.joins import decide_join

SUMMARY = {
    "instruction": "All in all?",
    "attachment_type": "text",
    "attachment": "of ${{ length(results) }}",
    "categories": ["yes", "no"],
}


def joins(**join: Any) -> dict[str, Any]:
    return {
        "after": {"step": "each"},
        "join": {"wait": "all", "reduce": "majority", **join},
        "create": {"type": "categorization", "params": SUMMARY},
    }


def test_a_join_fires_once_after_the_last_of_its_tasks(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH, "all": joins()})
    pipeline.receive(boxes("car", "car", "pedestrian"))
    children = list(pipeline.children("each"))
    assert len(children) == 3
    (join,) = pipeline.joins().values()
    assert (join["id"], join["expected"], join["fired_at"]) == (f"w.all.{ROOT}", 3, None)
    for child in children[:2]:
        pipeline.finish(child, {"category": "yes"})
    assert pipeline.joins()[f"w.all.{ROOT}"]["fired_at"] is None
    pipeline.finish(children[2], {"category": "no"})
    (join,) = pipeline.joins().values()
    assert (join["verdict"], join["reason"]) == ("fire", "3 of 3 tasks are completed")
    assert join["result"]["answer"] == {"category": "yes"}
    follow_up = pipeline.follow_ups()[f"w.all.{ROOT}"]
    assert (follow_up["state"], follow_up["request"]["attachment"]) == ("created", "of 3")


def test_of_many_tasks_that_end_at_once_four_workers_fire_a_join_once(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH, "all": joins(reduce="concatenation")})
    roots = [f"5f1e9b00000000000000{number:04d}" for number in range(4)]
    for root in roots:
        pipeline.receive(boxes(*["car"] * 12), task_id=root)
    children = list(pipeline.children("each"))
    assert len(children) == 48
    for child in children:
        pipeline.sandbox.complete(child, {"category": "yes"})
        pipeline.tell(child)
    pipeline.work_with(4)
    assert {join["verdict"] for join in pipeline.joins().values()} == {"fire"}
    created = Counter(
        task["unique_id"] for task in pipeline.sandbox.tasks() if task["params"]["attachment"] == "of 12"
    )
    assert created == Counter(f"w.all.{root}" for root in roots)
    assert pipeline.jobs() == []


def test_a_join_fires_with_as_many_as_its_quorum_and_not_again_with_the_rest(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH, "all": joins(wait=None, quorum="2 of 3")})
    pipeline.receive(boxes("car", "car", "car"))
    first, second, third = pipeline.children("each")
    pipeline.finish(first, {"category": "yes"})
    assert f"w.all.{ROOT}" not in pipeline.states()
    pipeline.finish(second, {"category": "yes"})
    (join,) = pipeline.joins().values()
    pipeline.finish(third, {"category": "no"})
    assert pipeline.states()[f"w.all.{ROOT}"] == "created"
    assert list(pipeline.joins().values()) == [join]


@pytest.mark.parametrize(
    ("on_deadline", "verdict", "state"),
    [("continue", "fire", "created"), ("hold", "hold", "held"), ("stop", "stop", None)],
)
def test_at_its_deadline_a_join_goes_on_holds_or_stops(
    pipeline: Pipeline, on_deadline: str, verdict: str, state: str | None
) -> None:
    pipeline.workflow({"each": EACH, "all": joins(within="7d", on_deadline=on_deadline)})
    pipeline.receive(boxes("car", "car"))
    first, second = pipeline.children("each")
    pipeline.finish(first, {"category": "yes"})
    assert pipeline.joins()[f"w.all.{ROOT}"]["fired_at"] is None
    wait_for_deadline(pipeline)
    (join,) = pipeline.joins().values()
    assert (join["verdict"], join["reason"]) == (
        verdict,
        "1 of 2 tasks are completed at the deadline; expected 2",
    )
    assert pipeline.states().get(f"w.all.{ROOT}") == state
    pipeline.finish(second, {"category": "yes"})
    assert pipeline.joins()[f"w.all.{ROOT}"] == join


def wait_for_deadline(pipeline: Pipeline) -> None:
    with pipeline.service.engine.begin() as connection:
        connection.execute(update(Join).values(deadline=from_now(-1)))
    pipeline.skip_waiting()


def test_a_join_does_not_wait_for_what_can_never_come(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH, "all": joins(on_deadline="continue")})
    pipeline.sandbox.add_fault("refused", status=402, times=1)
    pipeline.receive(boxes("car", "car"))
    states = Counter(pipeline.states().values())
    assert states == {"failed": 1, "created": 1}
    (child,) = pipeline.children("each")
    pipeline.finish(child, {"category": "yes"})
    (join,) = pipeline.joins().values()
    assert join["reason"] == "1 of 2 tasks are completed and no more can come; expected 2"
    assert pipeline.states()[f"w.all.{ROOT}"] == "created"


def test_a_failed_task_that_is_retried_is_waited_for(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": {**EACH, "on_error": {"retry": 1}}, "all": joins()})
    pipeline.receive(boxes("car", "car"))
    first, second = pipeline.children("each")
    pipeline.sandbox.fail(first)
    pipeline.tell(first)
    pipeline.work()
    pipeline.finish(second, {"category": "yes"})
    assert pipeline.joins()[f"w.all.{ROOT}"]["fired_at"] is None
    (again,) = [row for key, row in pipeline.follow_ups().items() if key.endswith(".retry-1")]
    assert (again["source_task_id"], again["state"]) == (ROOT, "created")
    pipeline.finish(again["task_id"], {"category": "yes"})
    (join,) = pipeline.joins().values()
    assert (join["verdict"], join["reason"]) == ("fire", "2 of 2 tasks are completed")


def test_copies_are_joined_element_by_element_and_a_tie_breaker_starts_where_they_disagree(
    pipeline: Pipeline,
) -> None:
    agreed = joins(over="copies", wait="all")
    pipeline.workflow(
        {
            "each": {**EACH, "copies": 3},
            "agreed": {key: agreed[key] for key in ("after", "join")}
            | {"when": "reduced.agreement >= `0.8`"},
            "tie": {**agreed, "when": "reduced.agreement < `0.8`"},
        }
    )
    pipeline.receive(boxes("car", "van"))
    assert len(pipeline.joins()) == 4
    answers = {"b0": ["yes", "yes", "yes"], "b1": ["yes", "no", "yes"]}
    for unique_id, row in pipeline.follow_ups().items():
        element, copy = unique_id.rsplit(".", 2)[-2:]
        pipeline.finish(row["task_id"], {"category": answers[element][int(copy) - 1]})
    assert [key for key in pipeline.states() if ".tie." in key] == [f"w.tie.{ROOT}.b1"]
    joined = pipeline.joins()
    assert joined[f"w.agreed.{ROOT}.b0"]["result"]["answer"] == {"category": "yes"}
    assert "when" in joined[f"w.agreed.{ROOT}.b1"]["reason"]


def test_a_later_response_adds_to_a_join_that_is_still_open(pipeline: Pipeline) -> None:
    pipeline.workflow({"each": EACH, "all": joins(reduce="concatenation")})
    pipeline.receive(boxes("car"))
    pipeline.receive(boxes("car", "car"), updated_at="2026-01-01T11:00:00.000Z")
    (join,) = pipeline.joins().values()
    assert join["expected"] == 2
    for child in list(pipeline.children("each")):
        pipeline.finish(child, {"category": "yes"})
    (join,) = pipeline.joins().values()
    assert len(join["result"]["answers"]) == 2


def test_the_tasks_of_a_join_can_be_fanned_out_and_joined_again(pipeline: Pipeline) -> None:
    again = {**joins(), "copies": 2}
    last = {"after": {"step": "all"}, "join": {"wait": "all", "reduce": "majority"}}
    pipeline.workflow({"each": EACH, "all": again, "last": last})
    pipeline.receive(boxes("car"))
    (child,) = pipeline.children("each")
    pipeline.finish(child, {"category": "yes"})
    for task_id in list(pipeline.children("all")):
        pipeline.finish(task_id, {"category": "no"})
    assert pipeline.joins()[f"w.last.{ROOT}"]["result"]["answer"] == {"category": "no"}


def test_plans_creations_and_joins_use_one_connection_at_a_time(
    open_pipeline: Callable[..., Pipeline],
) -> None:
    """A second one, asked for while the first is held, is refused after five seconds: several threads share few."""
    pipeline = open_pipeline(pool_size=1)
    last = {"after": {"step": "each"}, "join": {"wait": "all", "reduce": "majority"}}
    pipeline.workflow({"each": EACH, "last": last})
    pipeline.receive(boxes("car"))
    (child,) = pipeline.children("each")
    pipeline.finish(child, {"category": "yes"})
    assert pipeline.joins()[f"w.last.{ROOT}"]["verdict"] == "fire"
    assert [job for job in pipeline.jobs() if job["last_error"]] == []


def test_a_wide_join_counts_its_children_before_it_loads_them(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    def decide(workflow: Any, step: Any, children: Any, *given: Any) -> Any:
        loaded.append(len(children))
        return decide_join(workflow, step, children, *given)

    monkeypatch.setattr(joins_module, "COUNT_FIRST_ABOVE", 4)
    monkeypatch.setattr(joins_module, "decide_join", decide)
    pipeline.workflow({"each": EACH, "all": joins()})
    pipeline.receive(boxes(*["car"] * 6))
    for child in list(pipeline.children("each"))[:5]:
        pipeline.finish(child, {"category": "yes"})
    assert loaded == []
    pipeline.finish(list(pipeline.children("each"))[5], {"category": "yes"})
    assert loaded == [6]
    assert pipeline.joins()[f"w.all.{ROOT}"]["verdict"] == "fire"


def test_a_step_may_be_called_like_a_retry(pipeline: Pipeline) -> None:
    steps = {"retry-each": {**EACH, "on_error": {"retry": 10}}, "all": joins()}
    pipeline.workflow({**steps, "all": {**steps["all"], "after": {"step": "retry-each"}}})
    pipeline.receive(boxes("car", "car"))
    (join,) = pipeline.joins().values()
    assert join["expected"] == 2


CANCELED_RESPONSES = [
    {"canceled": True},
    {"cancelled": True},
    {"status": "canceled"},
    {"canceled": True, "status": "cancelled"},
]


@pytest.mark.parametrize("response", CANCELED_RESPONSES, ids=str)
@pytest.mark.parametrize("status", ["completed", "canceled"])
def test_a_task_whose_response_only_says_canceled_ends_the_wait(
    pipeline: Pipeline, response: dict[str, Any], status: str
) -> None:
    pipeline.workflow(
        {"each": EACH, "all": joins(reduce="concatenation", within="7d", on_deadline="continue")}
    )
    pipeline.receive(boxes("car", "car"))
    first, second = pipeline.children("each")
    pipeline.finish(first, {"category": "yes"})
    task = {**pipeline.sandbox.task(second), "status": status, "response": response}
    body = {"task": task, "task_id": second, "response": response}
    receive_callback(pipeline.service, json.dumps(body).encode())
    pipeline.work()
    by_task = {row["task_id"]: row["state"] for row in pipeline.follow_ups().values()}
    assert (by_task[first], by_task[second]) == ("completed", "canceled")
    (join,) = pipeline.joins().values()
    assert (join["verdict"], join["reason"]) == (
        "fire",
        "1 of 2 tasks are completed and no more can come; expected 2",
    )
    assert pipeline.follow_ups()[f"w.all.{ROOT}"]["request"]["attachment"] == "of 1"


@pytest.mark.parametrize(
    "response", [{"canceled": True, "category": "yes"}, {"canceled": False}, {"status": "done"}]
)
def test_a_response_that_says_more_than_canceled_is_a_result(
    pipeline: Pipeline, response: dict[str, Any]
) -> None:
    pipeline.workflow({"each": EACH, "all": joins(reduce="concatenation")})
    pipeline.receive(boxes("car"))
    (only,) = pipeline.children("each")
    task = {**pipeline.sandbox.task(only), "status": "completed", "response": response}
    receive_callback(
        pipeline.service, json.dumps({"task": task, "task_id": only, "response": response}).encode()
    )
    pipeline.work()
    assert pipeline.joins()[f"w.all.{ROOT}"]["reason"] == "1 of 1 tasks are completed"
