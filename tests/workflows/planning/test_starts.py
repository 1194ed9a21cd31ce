"""Steps that begin with inputs, and copies that differ."""

from typing import Any

from tests.workflows.kit import REQUEST, errors, made_by, seen, step, workflow
from workflows.planning.explain import explain
from workflows.planning.inputs import input_id, input_task, missing_columns
from workflows.planning.plan import plan
from workflows.planning.view import View, view

LABEL = {
    "start": {"columns": ["image"]},
    "create": {
        "type": "annotation",
        "params": {"attachment": "${{ row.image }}", "objects_to_annotate": ["car"]},
    },
}


def given(row: dict[str, Any], name: str = "w", task_id: str = "input-1") -> View:
    task = input_task(name, task_id, row)
    return view(task, task["response"])


def test_an_input_starts_only_the_steps_of_its_workflow_that_begin_with_inputs() -> None:
    loaded = workflow({"label": {**LABEL, "copies": 3}, "other": step()})
    found = plan(given({"image": "a.png"}), loaded)
    assert [one.unique_id for one in found] == [f"w.label.input-1.{number}" for number in (1, 2, 3)]
    assert {one.request["attachment"] for one in found} == {"a.png"}
    assert plan(given({"image": "a.png"}, "another"), loaded) == []
    assert [one.step for one in plan(seen(), loaded)] == ["other"]


def test_later_steps_see_the_row_of_the_first() -> None:
    next_step = step(
        after={"step": "label"},
        create={"type": "annotation", "params": {**REQUEST, "tags": ["${{ row.city }}"]}},
    )
    loaded = workflow({"label": LABEL, "next": next_step})
    child = seen("annotation", {"annotations": []}, source=made_by("label"), parent=given({"city": "Bern"}))
    assert [one.request["tags"] for one in plan(child, loaded)] == [["Bern"]]


def test_explain_names_what_starts_the_step() -> None:
    (step_,) = explain(seen(), workflow({"label": LABEL}))
    assert [(one.name, one.held) for one in step_.conditions] == [("start", False)]
    assert "only inputs of the workflow start this step" in step_.conditions[0].why


def test_equal_rows_are_one_input_of_a_workflow_and_environment() -> None:
    row = {"image": "a.png"}
    assert input_id("w", row, "live") == input_id("w", dict(row), "live")
    ids = [
        input_id(*one)
        for one in (("w", row, "live"), ("w", row, "test"), ("v", row, "live"), ("w", {}, "live"))
    ]
    assert len(set(ids)) == 4
    assert input_id("w", row, "test", "order-7") == "input-w-order-7-test"
    assert missing_columns(workflow({"label": LABEL}), {"city": "Bern"}) == ["image"]


def test_a_start_stands_alone_and_row_exists_only_with_it() -> None:
    assert "cannot be combined with `after`" in errors({"x": {**step(), **LABEL}})["steps.x.start"]
    assert (
        "in a workflow that has a step with `start`" in errors({"x": step(when="row.image")})["steps.x.when"]
    )


def test_copies_can_differ_in_any_field_of_the_request() -> None:
    copies = [
        {"project": "team-a"},
        {"project": "team-b", "instruction": "Copy ${{ copy }} of ${{ task.type }}"},
    ]
    found = plan(seen(), workflow({"x": step(copies=copies)}))
    assert [(one.unique_id[-2:], one.request) for one in found] == [
        (".1", {**REQUEST, "project": "team-a"}),
        (".2", {**REQUEST, "project": "team-b", "instruction": "Copy 2 of polygonannotation"}),
    ]


def test_what_a_copy_changes_wrongly_is_reported_at_its_place() -> None:
    found = errors(
        {"x": step(copies=[{"objects_to_annotate": "car"}, {"unique_id": "u"}, {"tags": ["${{ nothing }}"]}])}
    )
    assert found.keys() == {
        "steps.x.copies[0].objects_to_annotate",
        "steps.x.copies[1].unique_id",
        "steps.x.copies[2].tags[0]",
    }
    without = {"type": "annotation", "params": {"attachment": "a"}}
    needs = errors({"x": step(create=without, copies=[{"objects_to_annotate": ["car"]}, {}])})
    assert list(needs) == ["steps.x.copies[1]"]
    assert (
        "one expression"
        in errors({"x": step(create={**without, "params": "${{ task.params }}"}, copies=[{}])})[
            "steps.x.copies"
        ]
    )
    assert "list of mappings" in errors({"x": step(copies=["a"])})["steps.x.copies"]
    assert workflow({"x": step(create=without, copies=[{"objects_to_annotate": ["car"]}])})
