from typing import Any

import pytest

from tests.workflows.kit import REQUEST, TASK_ID, Spec, boxes, made_by, named, seen, step, workflow
from workflows.definition.crops import Rect
from workflows.definition.model import Workflow
from workflows.definition.recipes import Cut, Mirror, RequestFile
from workflows.planning.explain import explain
from workflows.planning.joins import (
    FIRE,
    HOLD,
    STOP,
    WAIT,
    Child,
    Verdict,
    decide_join,
    joins_for,
    joins_of,
    plan_join,
)
from workflows.planning.plan import plan
from workflows.planning.view import view

ASK = "categorization"


def joining(join: Spec | None = None, ask: Spec | None = None, **keys: Any) -> Workflow:
    """Three copies are asked, and `together` looks at them."""
    return workflow(
        {
            "ask": step(copies=3, **(ask or {})),
            "together": {"after": {"step": "ask"}, "join": join or {}, "create": step()["create"], **keys},
        }
    )


def child(number: int, state: str = "completed", response: Any = None, retry: int = 0, **keys: Any) -> Child:
    first = f"w.ask.{TASK_ID}.{number}"
    attempt, unique_id = retry + 1, first + (f".retry-{retry}" if retry else "")
    source = made_by("ask", unique_id)
    if state in ("completed", "error"):
        answer = {"error": "x"} if state == "error" else response or {"category": "red"}
        view = seen(ASK, answer, task_id=f"child-{number}", source=source, **keys)
        return Child(unique_id, state, view, attempt, first)
    return Child(unique_id, state, None, attempt, first)


def verdict(children: list[Child], join: Spec | None = None, overdue: bool = False, **keys: Any) -> str:
    loaded = joining(join, **keys)
    return decide_join(loaded, named(loaded, "together"), children, overdue).do


def test_a_fan_out_opens_the_joins_over_it() -> None:
    loaded = joining({"within": "7d"})
    (opening,) = joins_for(plan(seen(), loaded), loaded)
    assert (opening.key, opening.step, opening.source_task_id) == (
        f"w.together.{TASK_ID}",
        "together",
        TASK_ID,
    )
    assert opening.children == tuple(f"w.ask.{TASK_ID}.{number}" for number in (1, 2, 3))
    assert opening.within == 7 * 86400


def test_an_empty_fan_out_opens_no_join() -> None:
    loaded = joining(ask={"for_each": "label"})
    assert joins_for(plan(seen(response={"annotations": []}), loaded), loaded) == []


def test_the_task_of_a_child_knows_the_join_that_waits_for_it() -> None:
    loaded = joining()
    opened = joins_for(plan(seen(), loaded, "p-"), loaded, "p-")[0].key
    assert [key for key, _ in joins_of(made_by("ask"), loaded, "p-")] == [opened]
    assert not list(joins_of(made_by("together"), loaded))
    assert not list(joins_of(made_by("ask")._replace(workflow="other"), loaded))


def test_the_copies_of_each_annotation_can_be_joined_by_themselves() -> None:
    loaded = joining({"over": "copies"}, ask={"for_each": "annotation", "after": {"type": "annotation"}})
    opened = joins_for(plan(seen("annotation", boxes("car", "bus")), loaded), loaded)
    assert [(opening.key, opening.part, len(opening.children)) for opening in opened] == [
        (f"w.together.{TASK_ID}.uuid-0", "uuid-0", 3),
        (f"w.together.{TASK_ID}.uuid-1", "uuid-1", 3),
    ]
    assert [key for key, _ in joins_of(made_by("ask", annotation="uuid-1"), loaded)] == [opened[1].key]


def test_a_fan_out_that_repeats_is_joined_for_each_response() -> None:
    loaded = joining(ask={"repeat": "each_response"})
    given = seen()
    (opening,) = joins_for(plan(given, loaded), loaded)
    assert opening.key == f"w.together.{TASK_ID}.{str(given.digest)[:16]}"
    assert [key for key, _ in joins_of(made_by("ask", response=given.digest), loaded)] == [opening.key]


@pytest.mark.parametrize(
    ("join", "states", "overdue", "wanted"),
    [
        ({}, ["completed"] * 3, False, FIRE),
        ({}, ["completed", "completed", "created"], False, WAIT),
        ({}, ["completed", "completed", "held"], False, WAIT),
        ({}, ["completed", "completed", "created"], True, HOLD),
        ({"on_deadline": "continue"}, ["completed", "completed", "created"], True, FIRE),
        ({"on_deadline": "stop"}, ["completed", "completed", "created"], True, STOP),
        ({"on_deadline": "continue"}, ["created"] * 3, True, STOP),
        ({}, ["completed", "completed", "failed"], False, HOLD),
        ({"on_deadline": "continue"}, ["completed", "failed", "skipped"], False, FIRE),
        ({"on_deadline": "continue"}, ["completed", "failed", "planned"], False, WAIT),
        ({}, ["failed", "canceled", "error"], False, STOP),
        ({"wait": 1}, ["completed", "created", "created"], False, FIRE),
        ({"wait": 2}, ["completed", "created", "failed"], False, WAIT),
        ({"wait": 2}, ["completed", "error", "failed"], False, HOLD),
        ({"quorum": "2 of 3"}, ["completed", "completed", "created"], False, FIRE),
        ({"quorum": "2 of 3"}, ["completed", "created", "created"], False, WAIT),
        ({"quorum": "67%"}, ["completed", "completed", "created"], False, WAIT),
    ],
)
def test_a_join_waits_fires_holds_or_stops(join: Spec, states: list[str], overdue: bool, wanted: str) -> None:
    assert verdict([child(number, state) for number, state in enumerate(states, 1)], join, overdue) == wanted


def test_a_result_counts_when_it_has_the_state_that_the_join_asks_for() -> None:
    children = [child(1, task={"customer_review_status": "accepted"}), child(2), child(3)]
    assert verdict(children, {"wait": 1}, after={"step": "ask", "state": "accepted"}) == FIRE
    assert verdict(children[1:], {"wait": 1}, after={"step": "ask", "state": "accepted"}) == WAIT


def test_a_child_that_will_be_tried_again_is_waited_for_and_its_last_try_counts() -> None:
    retrying = {"on_error": {"retry": 2}}
    others = [child(1), child(2)]
    assert verdict([*others, child(3, "error")], ask=retrying) == WAIT
    assert verdict([*others, child(3, "error"), child(3, "created", retry=1)], ask=retrying) == WAIT
    assert verdict([*others, child(3, "error"), child(3, "completed", retry=1)], ask=retrying) == FIRE
    last = [child(3, "error", retry=number) for number in (0, 1, 2)]
    assert verdict([*others, *last], ask=retrying) == HOLD


def joined(loaded: Workflow, children: list[Child], do: str = FIRE, given: Any = None) -> Any:
    together = named(loaded, "together")
    return plan_join(
        given or seen(), loaded, together, Verdict(do, "2 of 3", tuple(children)), f"w.together.{TASK_ID}"
    )


def test_what_follows_a_join_follows_the_task_that_was_fanned_out() -> None:
    (follow_up,) = joined(joining(), [child(1), child(2), child(3)]).follow_ups
    assert (follow_up.unique_id, follow_up.source_task_id, follow_up.step) == (
        f"w.together.{TASK_ID}",
        TASK_ID,
        "together",
    )
    assert (follow_up.state, follow_up.depth) == ("planned", 1)


def test_results_and_what_they_were_reduced_to_can_be_asked_for() -> None:
    params = {
        **REQUEST,
        "metadata": {
            "answers": "${{ results[].answer.category }}",
            "most": "${{ reduced.answer.category }}",
            "tasks": "${{ results[].task_id }}",
        },
    }
    loaded = joining({"reduce": "majority"}, create={"type": "annotation", "params": params})
    children = [
        child(number, response={"category": color}) for number, color in enumerate(["red", "blue", "red"], 1)
    ]
    outcome = joined(loaded, children)
    assert outcome.follow_ups[0].request["metadata"] == {
        "answers": ["red", "blue", "red"],
        "most": "red",
        "tasks": ["child-1", "child-2", "child-3"],
    }
    assert outcome.reduced["agreement"] == pytest.approx(2 / 3)


def test_a_threshold_of_agreement_decides_whether_a_tie_breaker_starts() -> None:
    loaded = joining({"reduce": "majority"}, when="reduced.agreement < `0.7`")
    agreeing = joined(loaded, [child(1), child(2), child(3)])
    assert (agreeing.follow_ups, agreeing.reason) == ((), "when: reduced.agreement < `0.7`")
    assert agreeing.reduced["agreement"] == 1
    assert len(joined(loaded, [child(1), child(2, response={"category": "blue"})]).follow_ups) == 1


def test_a_join_that_is_incomplete_plans_what_follows_as_held() -> None:
    (follow_up,) = joined(joining(), [child(1)], HOLD).follow_ups
    assert (follow_up.state, follow_up.reason) == ("held", "the join is incomplete: 2 of 3")


def test_a_join_without_create_keeps_its_outcome() -> None:
    loaded = workflow(
        {"ask": step(), "together": {"after": {"step": "ask"}, "join": {"reduce": "concatenation"}}}
    )
    outcome = joined(loaded, [child(1)])
    assert outcome.follow_ups == ()
    assert outcome.reduced["answers"][0]["answer"] == {"category": "red"}


def test_results_of_cuts_are_in_the_coordinates_of_the_image_and_know_what_they_are_about() -> None:
    loaded = workflow(
        {
            "ask": step(after={"type": "annotation"}, for_each="annotation", crop={}),
            "together": {"after": {"step": "ask"}, "join": {"reduce": "union"}},
        }
    )
    cut = RequestFile(("attachment",), Cut(Mirror("a.png"), Rect(100, 50, 40, 20)))
    inside = {"annotations": [{"type": "box", "left": 1, "top": 2, "width": 3, "height": 4}]}
    source = made_by("ask", annotation="uuid-1", request={"attachment": None}, files=(cut,))
    one = Child(source.unique_id, "completed", seen("annotation", inside, task_id="c", source=source))
    whole = seen("annotation", boxes("car", "bus"))
    assert joined(loaded, [one], given=whole).reduced["annotations"][0]["left"] == 101
    loaded = joining(
        create={
            "type": "annotation",
            "params": {**REQUEST, "metadata": {"about": "${{ results[0].annotation.label }}"}},
        }
    )
    assert joined(loaded, [one], given=whole).follow_ups[0].request["metadata"] == {"about": "bus"}


def test_a_step_with_a_join_is_not_planned_for_each_child_by_itself() -> None:
    assert plan(seen(ASK, {"category": "red"}, source=made_by("ask")), joining()) == []


def test_an_explanation_tells_each_condition_also_after_the_first_that_fails() -> None:
    loaded = workflow(
        {
            "x": step(
                after={"type": "annotation", "project": "p"},
                when="annotations",
                for_each="label",
                where="label == 'bus'",
            )
        }
    )
    (explanation,) = explain(seen(), loaded)
    assert {condition.name: condition.held for condition in explanation.conditions} == {
        "after.type": False,
        "after.project": False,
        "after.state": True,
        "when": True,
    }
    assert explanation.conditions[0].why == "is 'polygonannotation'; expected 'annotation'"
    assert (explanation.elements, explanation.left, explanation.follow_ups) == (1, 0, ())


def test_an_explanation_is_what_plan_does() -> None:
    loaded = workflow(
        {"x": step(), "y": step(when="length(task.missing)"), "z": step(for_each="task.params.attachment")}
    )
    explanations = explain(seen(), loaded)
    assert [follow_up for one in explanations for follow_up in one.follow_ups] == plan(seen(), loaded)
    assert explanations[1].conditions[-1].held is None
    assert explanations[2].conditions[-1].name == "for_each"


def test_an_explanation_tells_how_a_join_stands() -> None:
    loaded = joining()
    waiting = explain(seen(), loaded, children={"together": [child(1), child(2, "created")]})[1]
    assert waiting.conditions[0][:3] == ("join", False, "wait: 1 of 2 tasks are completed; waiting for 2")
    assert (
        explain(view({"task_id": "1"}, None), loaded)[1].conditions[0].why
        == "this task has no tasks of the step ask"
    )
