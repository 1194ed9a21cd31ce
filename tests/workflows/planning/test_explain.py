from typing import Any

import pytest

from tests.workflows.kit import boxes, made_by, seen, step, workflow
from workflows.definition.expressions import compile_expression
from workflows.planning.explain import explain
from workflows.planning.joins import Child


def values(part: Any) -> dict[str, Any]:
    return dict(part.values)


def test_a_condition_is_shown_with_the_values_that_it_saw() -> None:
    loaded = workflow({"x": step(when="length(annotations) > `3` && task.project == 'street'")})
    (explained,) = explain(seen(), loaded)
    when = explained.conditions[-1]
    assert (when.held, values(when)) == (False, {"length(annotations)": 1, "task.project": None})


def test_each_element_says_whether_where_selects_it_and_what_it_saw() -> None:
    after = {"type": "annotation"}
    loaded = workflow({"x": step(after=after, for_each="annotation", where="annotation.label == 'car'")})
    (explained,) = explain(seen("annotation", boxes("car", "van")), loaded)
    assert [(one.element, one.held, values(one)) for one in explained.where] == [
        ("uuid-0", True, {"annotation.label": "car"}),
        ("uuid-1", False, {"annotation.label": "van"}),
    ]


def test_a_join_shows_what_its_condition_saw() -> None:
    after, reduce = {"step": "ask"}, {"reduce": "majority"}
    last = step(after=after, join=reduce, when="reduced.agreement < `0.8` && length(results) == `2`")
    loaded = workflow({"ask": step(), "last": last})
    children = [
        Child(
            f"w.ask.{number}",
            "completed",
            seen(
                "annotation", {"annotations": [], "category": "a"}, task_id=str(number), source=made_by("ask")
            ),
        )
        for number in (1, 2)
    ]
    explained = explain(seen(), loaded, children={"last": children})[1]
    join, when = explained.conditions
    assert (join.name, when.name, when.held) == ("join", "when", False)
    assert values(when) == {"reduced.agreement": 1.0, "length(results)": 2}


def test_a_large_value_is_described() -> None:
    loaded = workflow({"x": step(when="annotations && response")})
    many = {"annotations": boxes(*["car"] * 50)["annotations"], "other": 1}
    (explained,) = explain(seen("polygonannotation", many), loaded)
    assert values(explained.conditions[-1]) == {
        "annotations": "a list of 50",
        "response": "an object with annotations, other",
    }


@pytest.mark.parametrize(
    ("source", "operands"),
    [
        ("!(a.b[0] == `1`) || to_string(c)", ["a.b[0]", "to_string(c)"]),
        ("a[].b && c[*].d && e[?f == `1`].g && h.*.i", ["a[].b", "c[*].d", "e[?…].g", "h.*.i"]),
        ("[a, b] == `[]`", ["…"]),
    ],
)
def test_operands_are_named_as_they_are_written(source: str, operands: list[str]) -> None:
    assert [one.expression for one in compile_expression(source).operands({})] == operands
