"""Each mistake in an expression that would cost money later is an error of `check`."""

import json
from typing import Any

import pytest

from tests.workflows.kit import REQUEST, errors, step, workflow
from workflows.definition.loader import parse
from workflows.definition.model import Workflow

ANNOTATION = {"after": {"type": "polygonannotation"}, "for_each": "annotation"}


def in_position(position: str, expression: str) -> dict[str, Any]:
    """A step with an expression in one of the places where expressions are."""
    match position:
        case "when":
            return {"x": step(when=expression)}
        case "where":
            return {"x": step(for_each="annotation", where=expression)}
        case "for_each":
            return {"x": step(for_each=f"annotations[?{expression}]")}
        case "params":
            return {"x": step(create=_create(metadata={"a": {"b": [f"${{{{ {expression} }}}}"]}}))}
        case "text":
            return {"x": step(create=_create(instruction=f"see ${{{{ {expression} }}}}!"))}
        case "on_error":
            return {
                "x": step(on_error={"retry": 1, "params": {"metadata": {"a": f"${{{{ {expression} }}}}"}}})
            }
        case _:
            return {"a": step(), "x": {"after": {"step": "a"}, "join": {}, "when": expression}}


def _create(**params: Any) -> dict[str, Any]:
    return {"type": "annotation", "params": {**REQUEST, **params}}


def _message(position: str, expression: str) -> str:
    return "; ".join(errors(in_position(position, expression)).values())


EVERYWHERE = ("when", "where", "params", "text", "on_error", "join")


@pytest.mark.parametrize("position", EVERYWHERE)
@pytest.mark.parametrize(
    "expression",
    [
        "task.project == parent.task.project",
        "task.metadata.city == answer.city",
        "parent.annotations[?uuid == label]",
        "length(annotations[?uuid == attributes.parent]) > `0`",
        "task.metadata.a != task.metadata.b",
        "source.annotation_uuid == task.metadata.uuid",
        "sort_by(annotations, &uuid == label)",
    ],
)
def test_a_comparison_of_two_values_that_may_both_be_null_is_refused(position: str, expression: str) -> None:
    assert "may both be null" in _message(position, expression)


@pytest.mark.parametrize("position", ["when", "params", "join"])
@pytest.mark.parametrize(
    "expression",
    [
        "task.project == 'street'",
        "task.metadata.city == `null`",
        "task.project && task.project == parent.task.project",
        "task.project != `null` && task.project == answer.project",
        "parent.annotations[?uuid && uuid == attributes.parent]",
        "task.task_id == parent.task.task_id",
        "length(annotations) == answer.count",
        "not_null(task.project, 'none') == task.metadata.project",
        "(task.project || 'none') == task.metadata.project",
    ],
)
def test_a_comparison_with_a_value_that_is_there_is_allowed(position: str, expression: str) -> None:
    assert workflow(in_position(position, expression))


@pytest.mark.parametrize(
    "expression",
    [
        "parent.annotations[?uuid == source.annotation]",
        "parent.annotations[?label == task.metadata.label]",
        "annotations[?attributes.a == parent.task.task_id]",
        "response.annotations[?uuid == source.annotation_uuid]",
        "annotations[].{label: label, image: task.params.attachment}",
        "annotations[].join(', ', [label, task.project])",
        "map(&merge(@, {project: task.project}), annotations)",
        "annotations | [?label == parent.answer.category]",
    ],
)
def test_a_name_of_the_view_inside_a_filter_is_refused_because_it_is_the_element_s_there(
    expression: str,
) -> None:
    assert "is a field of the element" in _message("params", expression)


@pytest.mark.parametrize(
    "expression",
    [
        "annotations[?label == 'car']",
        "annotations[?frame == `3`].attributes",
        "results_like",
        "task.params.layers",
        "parent.task.params.attachment",
        "annotations[?@.task == 'x']",
        "merge(task.params, {instruction: task.instruction})",
        "response.annotations[?annotation == 'x']",
    ],
)
def test_a_field_of_the_element_is_allowed(expression: str) -> None:
    found = parse(json.dumps({"workflow": "w", "steps": in_position("params", expression)}), "w.yaml")
    if expression == "results_like":
        assert not isinstance(found, Workflow)
    else:
        assert isinstance(found, Workflow), found


@pytest.mark.parametrize("position", EVERYWHERE)
@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("as_layers(source.annotation_uuid)", "as_layers() takes array or object as argument 1, not string"),
        ("join(', ', annotations)", "takes a list of string as argument 2, not of object"),
        ("join(annotations, ', ')", "takes string as argument 1, not array"),
        ("length(`5`)", "takes array or object or string as argument 1, not number"),
        ("round('2.5', `1`)", "takes number as argument 1, not string"),
        ("lower(annotations)", "takes string as argument 1, not array"),
        ("starts_with(task.task_id, `1`)", "takes string as argument 2, not number"),
        ("annotations.label", "`.label` of a list is always null; write `[].label`"),
        ("task.task_id.x", "`.x` of a string is always null"),
        ("length(annotations) == 'many'", "a number and a string are never equal"),
        ("annotations > `3`", "an array has no order"),
        ("length(annotations) > '3'", "a number and a string have no order"),
        ("source.annotation == task.task_id", "are never equal"),
    ],
)
def test_a_value_of_a_type_that_can_never_be_right_is_refused(
    position: str, expression: str, message: str
) -> None:
    assert message in _message(position, expression)


@pytest.mark.parametrize(
    "text",
    [
        "${ task.instruction }",
        "{{ task.instruction }}",
        "see ${task.params.attachment} now",
        "{{annotation.label}}",
    ],
)
@pytest.mark.parametrize("field", ["instruction", "attachment"])
def test_an_expression_in_other_brackets_is_refused(text: str, field: str) -> None:
    found = errors({"x": step(create=_create(**{field: text}))})
    assert "is sent as text; write `${{" in found[f"steps.x.create.params.{field}"]


@pytest.mark.parametrize("text", ["costs ${PRICE}", "Dear {{name}}", "a { b } c", "$ {{ }}", "{ task }"])
def test_text_in_brackets_that_names_nothing_of_ours_is_at_most_a_warning(text: str) -> None:
    assert workflow({"x": step(create=_create(instruction=text))})


@pytest.mark.parametrize(
    "type_name", ["${{ task.type }}", "${ task.type }", "{{ task.type }}", "anno${{ x }}"]
)
def test_an_expression_as_the_task_type_is_refused(type_name: str) -> None:
    found = errors({"x": step(create={"type": type_name, "params": REQUEST})})
    assert "expected the name of a task type, not the expression" in found["steps.x.create.type"]
    found = errors({"x": step(after={"type": type_name})})
    assert "expected the name of a task type, not the expression" in found["steps.x.after.type"]


def test_a_misspelt_task_type_in_after_is_a_warning_that_suggests_the_right_one() -> None:
    loaded = workflow({"x": step(after={"type": "polygonanotation"})})
    (warning,) = loaded.warnings
    assert "there is no task type 'polygonanotation', did you mean `polygonannotation`?" in warning.message


def test_a_parameter_that_scale_does_not_document_is_a_warning() -> None:
    loaded = workflow({"x": step(create=_create(obejcts=["car"]))})
    assert [warning.field for warning in loaded.warnings] == ["steps.x.create.params.obejcts"]
