"""What expressions see of a result, and where two missing values must not match."""

import pytest

from tests.workflows.kit import boxes, made_by, seen
from workflows.definition.expressions import compile_expression
from workflows.planning.view import View

UNNAMED = {"label": "bus", "left": 9, "top": 9, "width": 9, "height": 9}
PARENT = seen("annotation", {"annotations": [*boxes("car", "truck")["annotations"], UNNAMED]})


def child(element: str | None, parent: View | None = PARENT) -> View:
    source = made_by("ask", annotation=element)
    return seen("categorization", {"category": "truck"}, source=source, parent=parent)


def value(view: View, expression: str) -> object:
    return compile_expression(expression).evaluate(view)


def test_the_annotation_that_a_task_is_about_is_named_by_its_source() -> None:
    view = child("uuid-1")
    assert value(view, "source.annotation.label") == "truck"
    assert value(view, "source.annotation_uuid") == "uuid-1"
    assert value(view, "as_layers(source.annotation).boxes[0].left") == 100


def test_the_annotation_of_a_task_may_have_no_uuid() -> None:
    (key,) = (key for key, element in PARENT.elements.items() if element.annotation["label"] == "bus")
    assert value(child(key), "source.annotation.label") == "bus"
    assert value(child(key), "source.annotation_uuid") is None
    assert value(child(key), "source.element") == key


@pytest.mark.parametrize("element", [None, "3", "a-label-digest"])
def test_a_task_that_is_about_no_annotation_has_none(element: str | None) -> None:
    assert value(child(element), "source.annotation") is None
    assert value(child("uuid-1", parent=None), "source.annotation") is None


def test_two_missing_values_are_not_equal() -> None:
    view = child("uuid-1")
    assert value(view, "task.project == parent.task.project") is False
    assert value(view, "task.project != parent.task.project") is False
    assert value(view, "parent.annotations[?uuid == attributes.parent]") == []
    assert value(view, "task.project == `null`") is True
    assert value(view, "task.project != `null`") is False
    assert value(view, "`null` == `null`") is True


def test_a_boolean_is_not_a_number_and_equal_values_are_equal() -> None:
    view = seen(
        "annotation", {"annotations": [], "a": True, "b": 1, "c": [1, {"x": None}], "d": [1, {"x": None}]}
    )
    assert value(view, "response.a == response.b") is False
    assert value(view, "response.c == response.d") is True
    assert value(view, "response.b != response.a") is True
