"""What a step plans when a result file could not be read: nothing that uses the file, everything that does not."""

from typing import Any

import pytest

from tests.workflows.kit import TASK_ID, Spec, made_by, seen, step, workflow
from workflows.planning.explain import explain
from workflows.planning.joins import Child, Verdict, plan_join
from workflows.planning.plan import plan
from workflows.planning.reasons import ReasonCode

URL = {"annotations": {"url": "https://files.example/a.json"}}
REASON = "files.example answered 404"
BOX = {"type": "box", "label": "car", "left": 1, "top": 2, "width": 3, "height": 4, "uuid": "u1", "frame": 0}


TAGGED = {"tags": ["x"]}
TASK = {"tags": ["x"]}


def create(**params: Any) -> Spec:
    request = {
        "instruction": "x",
        "attachment": "a.png",
        "geometries": {"box": {"objects_to_annotate": ["car"]}},
    }
    return {"type": "imageannotation", "params": {**request, **params}}


DEPENDENT: dict[str, Spec] = {
    "when": {"when": "length(annotations) > `0`"},
    "where": {"for_each": "annotation", "where": "annotation.label == 'car'"},
    "for_each annotation": {"for_each": "annotation"},
    "for_each label": {"for_each": "label"},
    "for_each frame": {"for_each": "frame"},
    "for_each list": {"for_each": "${{ annotations[*].label }}"},
    "crop": {"for_each": "annotation", "crop": {}},
    "layers": {"create": create(layers="${{ layers }}")},
    "hypothesis": {"create": create(hypothesis="${{ hypothesis }}")},
    "base_annotations": {"create": create(base_annotations="${{ base_annotations }}")},
    "annotations in text": {"create": create(instruction="${{ length(annotations) }} boxes")},
    "uncropped": {"create": create(metadata={"boxes": "${{ uncropped }}"})},
}
INDEPENDENT: dict[str, Spec] = {
    "task": {"create": create(instruction="about ${{ task.task_id }}")},
    "answer": {"create": create(metadata={"answer": "${{ answer }}"})},
    "copies": {"copies": 2},
    "a when that is false before": {"when": "task.type == 'other' && length(annotations) > `0`"},
}


@pytest.mark.parametrize("keys", DEPENDENT.values(), ids=DEPENDENT)
def test_a_step_that_uses_a_missing_file_is_held_with_its_reason(keys: Spec) -> None:
    view = seen("videoannotation", URL, task=TASK, missing_files=REASON)
    (held,) = plan(view, workflow({"x": step(after=TAGGED, **keys)}))
    assert (held.state, held.reason_code, held.reason) == ("held", ReasonCode.INCOMPLETE, REASON)
    assert held.request == {}


@pytest.mark.parametrize("keys", INDEPENDENT.values(), ids=INDEPENDENT)
def test_a_step_that_uses_nothing_of_the_file_goes_on(keys: Spec) -> None:
    loaded = workflow({"x": step(after=TAGGED, **keys)})
    missing = plan(seen("videoannotation", URL, task=TASK, missing_files=REASON), loaded)
    there = plan(seen("videoannotation", URL, task=TASK, annotations=[BOX]), loaded)
    assert missing == there
    assert not any(one.state == "held" for one in missing)


def test_a_dry_run_of_a_step_that_uses_a_missing_file_waits_for_it_too() -> None:
    keys = DEPENDENT["layers"]
    loaded = workflow({"x": step(after=TAGGED, dry_run=True, **keys)})
    (held,) = plan(seen("videoannotation", URL, task=TASK, missing_files=REASON), loaded)
    assert held.state == "held"


def test_a_file_of_the_parent_is_missing_for_its_child() -> None:
    parent = seen("videoannotation", URL, task=TASK, missing_files=REASON)
    child = seen("categorization", {"category": "x"}, task_id="c", source=made_by("first"), parent=parent)
    loaded = workflow(
        {
            "first": step(after=TAGGED),
            "x": step(after={"step": "first"}, create=create(metadata={"of": "${{ parent.annotations }}"})),
        }
    )
    (held,) = plan(child, loaded)
    assert (held.state, held.reason) == ("held", REASON)


def test_explain_names_the_missing_file() -> None:
    loaded = workflow({"x": step(after=TAGGED, **DEPENDENT["where"])})
    (explanation,) = explain(seen("videoannotation", URL, task=TASK, missing_files=REASON), loaded)
    assert (explanation.conditions[-1].held, explanation.conditions[-1].why) == (None, REASON)


@pytest.mark.parametrize(
    ("join", "keys", "incomplete"),
    [
        ({"reduce": "union"}, {}, True),
        ({}, {"create": create(metadata={"all": "${{ results[*].annotations }}"})}, True),
        ({}, {}, False),
    ],
)
def test_a_join_waits_for_the_files_of_its_results_if_it_uses_them(
    join: Spec, keys: Spec, incomplete: bool
) -> None:
    loaded = workflow(
        {
            "ask": step(copies=2),
            "together": step(after={"step": "ask"}, join=join, **keys),
        }
    )
    source = made_by("ask")
    broken = seen("videoannotation", URL, task=TASK, task_id="c", source=source, missing_files=REASON)
    verdict = Verdict("fire", "1 of 1", (Child(source.unique_id, "completed", broken),))
    together = loaded.step("together")
    assert together is not None
    outcome = plan_join(seen(), loaded, together, verdict, f"w.together.{TASK_ID}")
    assert outcome.is_incomplete is incomplete
    assert {one.state for one in outcome.follow_ups} == {"held" if incomplete else "planned"}
