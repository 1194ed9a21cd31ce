from typing import Any

import pytest

from tests.workflows.kit import boxes, seen
from workflows.definition.expressions import ExpressionError, compile_expression
from workflows.definition.templates import compile_template, names_in, render


def value(written: Any, **response: Any) -> Any:
    template, errors = compile_template(written)
    assert not errors
    return render(template, seen("annotation", response or boxes("car", "bus")))


def test_a_string_that_is_one_whole_expression_keeps_the_type_of_its_value() -> None:
    assert value("${{ length(annotations) }}") == 2
    assert value("  ${{ task.params }}\n") == {"attachment": "https://images.example/street.png"}


def test_an_expression_inside_of_text_becomes_text() -> None:
    assert value("${{ length(annotations) }} of ${{ annotations[].label }}") == '2 of ["car", "bus"]'
    assert value("${{ `true` }} and ${{ `1.0` }} and ${{ 'ä' }}") == "true and 1 and ä"


def test_null_leaves_out_the_key_or_the_element_that_it_would_fill() -> None:
    written = {
        "a": "${{ task.missing }}",
        "b": ["${{ task.missing }}", "x"],
        "c": {"d": "${{ task.missing }}"},
        "e": None,
    }
    assert value(written) == {"b": ["x"], "c": {}, "e": None}


def test_text_that_needs_a_missing_value_is_an_error() -> None:
    with pytest.raises(ExpressionError, match=r"`task.city` is null inside a text"):
        value("Boxes in ${{ task.city }}")


def test_braces_and_quotes_inside_of_an_expression_do_not_end_it() -> None:
    assert value("${{ {a: {b: '}}'}} }}") == {"a": {"b": "}}"}}
    assert value('${{ `{"a": {}}` }}!') == '{"a": {}}!'


def test_an_expression_that_does_not_end_is_an_error() -> None:
    assert "has no closing }}" in compile_template({"a": ["${{ task"]})[1][("a", 0)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("length(annotations) > 0", "write numbers in backticks: `0`"),
        ("task.a and task.b", "write &&, ||, ! for and, or, not"),
        ('task.project == "street"', "write text in single quotes: 'street'"),
        ('annotations[?label == "car"]', "write text in single quotes: 'car'"),
        ("annotations[?hidden == true]", "write true in backticks"),
        ("lenght(annotations)", "did you mean `length`?"),
        ("only(layers)", "only() takes 2 arguments, not 1"),
        ("", "the expression is empty"),
        ("a..b", "is not JMESPath"),
    ],
)
def test_what_can_not_be_read_says_how_it_is_written(source: str, said: str) -> None:
    with pytest.raises(ExpressionError) as error:
        compile_expression(source)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("task.params.attachment", {"task"}),
        ("annotations[?label == 'car'].{left: left, task: label}", {"annotations"}),
        ("only(layers, 'car') || hypothesis", {"layers", "hypothesis"}),
        ("layers.only('car')", {"layers"}),
        ("sort_by(annotations, &left)[0].label", {"annotations"}),
        ("{a: task, b: [answer, error.message]}", {"task", "answer", "error"}),
        ("annotations | [0]", {"annotations"}),
        ("annotations[0:2].label", {"annotations"}),
    ],
)
def test_the_names_that_an_expression_asks_the_view_for_are_known(source: str, names: set[str]) -> None:
    assert compile_expression(source).names == names


def test_a_function_of_ours_can_stand_behind_its_first_value() -> None:
    assert value("${{ layers.only('car') }}") == value("${{ only(layers, 'car') }}")
    assert list(value("${{ layers.only('car') }}")) == ["boxes"]


def test_the_other_values_of_a_function_behind_a_dot_are_looked_up_in_the_view() -> None:
    assert value("${{ layers.only(annotations[0].label).boxes[].label }}") == ["car"]
    assert compile_expression("layers.only(label)").names == {"layers", "label"}


def test_annotations_are_filtered_by_label_in_whatever_they_come() -> None:
    assert [box["label"] for box in value("${{ annotations.without('car') }}")] == ["bus"]
    assert [box["label"] for box in value("${{ hypothesis.only(['car', 'van']).annotations }}")] == ["car"]
    assert value("${{ layers.only('van') }}") == {}


def test_what_stands_in_a_file_is_not_filtered_in_silence() -> None:
    template, _ = compile_template("${{ hypothesis.only('car') }}")
    with pytest.raises(ExpressionError, match="cannot be filtered"):
        render(template, seen("videoannotation", {"annotations": {"url": "https://results.example/a"}}))


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("round(`2.345`, `2`)", 2.35),
        ("round(`2.6`, `0`)", 3),
        ("unique(annotations[].type)", ["box"]),
        ("lower('CAR')", "car"),
        ("modulo(`30`, `10`)", 0),
        ("modulo(`7`, `0`)", None),
        ("replace('a-b', '-', '_')", "a_b"),
        ("at(annotations, `1`).label", "bus"),
        ("at(annotations, `7`)", None),
        ("length(as_layers(annotations[0]).boxes)", 1),
        ("at_frame(annotations, `3`)", []),
    ],
)
def test_each_function_gives(source: str, result: Any) -> None:
    assert value("${{ " + source + " }}") == result


@pytest.mark.parametrize(
    "source", ["length(task.missing)", "sum(['a'])", "'a' < `1`", "task.params.attachment > `1`"]
)
def test_what_fails_on_a_result_says_which_expression_it_was(source: str) -> None:
    with pytest.raises(ExpressionError, match="`"):
        value("${{ " + source + " }}")


def test_a_whole_view_is_no_value() -> None:
    template, _ = compile_template("${{ parent }}")
    with pytest.raises(ExpressionError, match="name a part of it"):
        render(template, seen(parent=seen()))
    assert names_in(template) == {"parent"}


def test_the_parent_is_asked_with_the_names_of_a_view() -> None:
    template, _ = compile_template("${{ parent.layers.polygons[0].label }}")
    assert render(template, seen("categorization", {"category": "good"}, parent=seen())) == "car"


@pytest.mark.parametrize(
    ("source", "holds"),
    [("`0`", True), ("''", False), ("`[]`", False), ("`{}`", False), ("`false`", False), ("'x'", True)],
)
def test_a_condition_holds_as_jmespath_has_it(source: str, holds: bool) -> None:
    assert compile_expression(source).holds(seen()) is holds
