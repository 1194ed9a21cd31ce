"""Every follow-up that did not come to its task can be planned again with today's file, and none is paid twice."""

from typing import Any

import pytest
from sqlalchemy import update

from models import AuditEntry, FollowUp
from pipeline.follow_ups import decisions
from pipeline.follow_ups.json_changes import ABSENT, json_changes
from pipeline.follow_ups.replan import Replan, describe, preview, replan
from tests.assertions import table
from tests.factories.callbacks import boxes
from tests.factories.pipelines import QUESTION, ROOT, Pipeline, asks

ASK = f"w.ask.{ROOT}"


def again(pipeline: Pipeline, *unique_ids: str) -> list[Replan]:
    """Plan follow-ups again, and run what follows."""
    found = [one for one, _ in replan(pipeline.service, unique_ids, "ana")]
    pipeline.work()
    return found


def decide(pipeline: Pipeline, decision: Any, unique_id: str) -> None:
    with pipeline.service.engine.begin() as connection:
        decision(connection, unique_id, "ana")
    pipeline.work()


def with_instruction(text: str, **keys: Any) -> dict[str, Any]:
    return asks(create={"type": "categorization", "params": {**QUESTION, "instruction": text}}, **keys)


def test_what_a_dry_run_skipped_is_created_on_request(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(dry_run=True)})
    pipeline.receive(boxes("car"))
    (refused,) = again(pipeline, ASK)
    assert refused.refused == "today's file skips it, too: dry run"
    pipeline.workflow({"ask": with_instruction("Really good?")})
    (shown,) = preview(pipeline.service, [ASK])
    assert pipeline.states() == {ASK: "skipped"}
    described = describe(pipeline.service, shown)
    assert (described["state"], described["refused"]) == ("skipped", None)
    assert described["follow_ups"] == [
        {
            "unique_id": ASK,
            "state": "created",
            "reason": None,
            "type": "categorization",
            "changes": [{"path": "instruction", "before": "Good?", "after": "Really good?"}],
        }
    ]
    again(pipeline, ASK)
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["reason"], row["reason_code"]) == ("created", None, None)
    assert pipeline.at_scale()[ASK]["instruction"] == "Really good?"
    assert {entry["action"] for entry in table(pipeline.service, AuditEntry)} == {"follow-up.replan"}


def test_an_expression_that_failed_is_planned_again_once_it_is_corrected(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": with_instruction("${{ join(', ', task.metadata.notes) }}")})
    pipeline.receive(boxes("car"), metadata={"notes": [None]})
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["reason_code"]) == ("skipped", "invalid")
    pipeline.workflow({"ask": with_instruction("Look")})
    again(pipeline, ASK)
    assert pipeline.states() == {ASK: "created"}


def test_a_step_that_failed_as_a_whole_is_planned_for_each_element(pipeline: Pipeline) -> None:
    broken = asks(for_each="annotation", when="length(task.metadata.nothing) > `0`")
    pipeline.workflow({"ask": broken})
    pipeline.receive(boxes("car", "van"))
    assert pipeline.states() == {ASK: "skipped"}
    pipeline.workflow({"ask": asks(for_each="annotation")})
    (done,) = again(pipeline, ASK)
    assert [one.unique_id for one in done.planned] == [f"{ASK}.b0", f"{ASK}.b1"]
    assert pipeline.states() == {ASK: "canceled", f"{ASK}.b0": "created", f"{ASK}.b1": "created"}


def test_what_a_person_canceled_is_planned_again_with_the_same_unique_id(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(hold=True)})
    pipeline.receive(boxes("car"))
    decide(pipeline, decisions.cancel, ASK)
    pipeline.workflow({"ask": asks()})
    again(pipeline, ASK)
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["decided_by"]) == ("created", None)


def test_a_task_that_was_canceled_at_scale_is_followed_by_the_next_attempt(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    decide(pipeline, decisions.cancel, ASK)
    assert pipeline.states() == {ASK: "canceled"}
    pipeline.workflow({"ask": with_instruction("Better?")})
    again(pipeline, ASK)
    assert pipeline.states() == {ASK: "canceled", f"{ASK}.retry-1": "created"}
    second = pipeline.follow_ups()[f"{ASK}.retry-1"]
    assert (second["attempt"], second["first_unique_id"]) == (2, ASK)
    assert second["request"]["instruction"] == "Better?"
    (refused,) = again(pipeline, ASK)
    assert refused.refused == f"its next attempt {ASK}.retry-1 exists and is created"


def test_a_task_that_ended_in_an_error_is_followed_by_the_next_attempt(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    (task_id,) = pipeline.children("ask")
    pipeline.sandbox.fail(task_id, "message")
    pipeline.tell(task_id)
    pipeline.work()
    assert pipeline.states() == {ASK: "error"}
    again(pipeline, ASK)
    assert pipeline.states() == {ASK: "error", f"{ASK}.retry-1": "created"}
    decide(pipeline, decisions.cancel, f"{ASK}.retry-1")
    again(pipeline, f"{ASK}.retry-1")
    assert pipeline.states()[f"{ASK}.retry-2"] == "created"


def test_a_task_that_exists_at_scale_is_never_paid_again(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.receive(boxes("car"))
    (refused,) = again(pipeline, ASK)
    assert str(refused.refused).startswith("the follow-up is created; replan takes one that is skipped")
    # A canceled follow-up whose create call was answered after it was canceled: the task exists, but its id is not stored.
    with pipeline.service.engine.begin() as connection:
        connection.execute(update(FollowUp).values(state="canceled", task_id=None))
    (refused,) = again(pipeline, ASK)
    (task_id,) = [task["task_id"] for task in pipeline.sandbox.tasks()]
    assert refused.refused == f"its task {task_id} exists at Scale and is pending, not canceled"
    assert len(pipeline.at_scale()) == 1


def test_what_scale_refused_is_planned_again_with_the_corrected_request(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks()})
    pipeline.sandbox.add_fault("refused", status=400, times=1)
    pipeline.receive(boxes("car"))
    assert pipeline.states() == {ASK: "failed"}
    again(pipeline, ASK)
    assert pipeline.states() == {ASK: "created"}


def test_what_is_held_is_held_again_with_the_new_request(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(hold=True)})
    pipeline.receive(boxes("car"))
    (refused,) = again(pipeline, ASK)
    assert refused.refused == "nothing would change; it is held: waits for approval"
    pipeline.workflow({"ask": with_instruction("Better?", hold=True)})
    again(pipeline, ASK)
    (row,) = pipeline.follow_ups().values()
    assert (row["state"], row["request"]["instruction"]) == ("held", "Better?")


def test_a_condition_of_a_join_that_failed_is_planned_again(pipeline: Pipeline) -> None:
    last = {"after": {"step": "each"}, "join": {"wait": "all"}}
    each = asks(for_each="annotation")
    pipeline.workflow({"each": each, "last": {**asks(**last), "when": "length(task.metadata.no) > `0`"}})
    pipeline.receive(boxes("car", "van"))
    for task_id in list(pipeline.children("each")):
        pipeline.finish(task_id, {"category": "yes"})
    last_id = f"w.last.{ROOT}"
    assert pipeline.states()[last_id] == "skipped"
    pipeline.workflow({"each": each, "last": {**asks(**last), "when": "length(results) == `2`"}})
    again(pipeline, last_id)
    assert pipeline.states()[last_id] == "created"


def test_what_cannot_be_planned_again_says_why(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(dry_run=True)})
    pipeline.receive(boxes("car"))
    unknown, _ = again(pipeline, "w.ask.unknown", ASK)
    assert unknown.is_unknown
    assert unknown.refused == "no follow-up w.ask.unknown is known"
    pipeline.workflow({"ask": asks(when="length(annotations) > `5`")})
    (refused,) = again(pipeline, ASK)
    assert str(refused.refused).startswith("today's file plans no such follow-up")
    pipeline.workflow({"other": asks()})
    (refused,) = again(pipeline, ASK)
    assert refused.refused == "the step w.ask is not among the loaded workflows"
    pipeline.workflow({"ask": asks()})
    with pipeline.service.engine.begin() as connection:
        decisions.pause(connection, "w", "ana")
    (refused,) = again(pipeline, ASK)
    assert refused.refused == "w is paused; `weighbridge workflows resume` resumes it"


def test_the_limits_hold_what_is_planned_again(pipeline: Pipeline) -> None:
    pipeline.workflow({"ask": asks(for_each="annotation", dry_run=True)})
    pipeline.receive(boxes("car", "van", "bus"))
    pipeline.workflow({"ask": asks(for_each="annotation", limits={"total": 2})})
    again(pipeline, *pipeline.follow_ups())
    assert sorted(pipeline.states().values()) == ["created", "created", "held"]


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": True}, [("a", 1, True)]),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3, 4]}}, [("a.b[1]", 2, 3), ("a.b[2]", ABSENT, 4)]),
        ({"a": 1}, {"c": 2}, [("a", 1, ABSENT), ("c", ABSENT, 2)]),
    ],
)
def test_the_difference_of_two_requests_names_each_value(before: Any, after: Any, changes: list[Any]) -> None:
    assert [tuple(change) for change in json_changes(before, after)] == changes
