"""The registry of task types, and what every response becomes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scale.envelope import ABSENT
from scale.layers import base_annotations, flatten, hypothesis, layers
from scale.task_types import GENERIC, TASK_TYPES, parse_response, task_type
from tests.scale import any_json

PAYLOADS = Path(__file__).parents[1] / "payloads"
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy


def recorded(name: str) -> Any:
    return json.loads((PAYLOADS / name).read_text())


@settings(unhurried, max_examples=300)
@given(any_json.type_names, any_json.responses | any_json.values, st.none() | any_json.tasks)
def test_whatever_a_response_holds_it_is_read_without_an_exception(
    name: str | None, response: Any, params: dict[str, Any] | None
) -> None:
    result = parse_response(name, response, params)
    assert [row.position for row in result.annotations] == list(range(len(result.annotations)))
    assert [artifact.ordinal for artifact in result.artifacts] == list(range(1, len(result.artifacts) + 1))
    assert all(type(row.geometry) is dict and type(row.type) is str for row in result.annotations)
    grouped, sentences = layers(flatten(name, response, params))
    assert bool(sum(map(len, grouped.values()))) or bool(sentences) or not result.annotations
    hypothesis(response, name, params)
    base_annotations(response, name, params)


@unhurried
@given(any_json.type_names, any_json.responses)
def test_the_order_of_keys_changes_no_row_and_no_ordinal(name: str | None, response: dict[str, Any]) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(item) for key, item in reversed(value.items())}
        return [turned(item) for item in value] if isinstance(value, list) else value

    def rows(result: Any) -> list[Any]:
        return [
            (row.position, row.type, row.label, row.uuid, row.warning is None) for row in result.annotations
        ]

    there, back = parse_response(name, response, None), parse_response(name, turned(response), None)
    assert there.artifacts == back.artifacts
    assert rows(there) == rows(back)


@unhurried
@given(any_json.lists)
def test_one_wrong_annotation_never_moves_or_loses_the_others(odd: list[Any]) -> None:
    good = {"label": "sheep", "left": 1, "top": 2.5, "width": 3, "height": 4}
    result = parse_response("annotation", {"annotations": [good, *odd, good]}, None)
    assert len(result.annotations) == len(odd) + 2
    for row in (result.annotations[0], result.annotations[-1]):
        assert (row.type, row.label, row.warning) == ("box", "sheep", None)
        assert row.geometry == {"left": 1, "top": 2.5, "width": 3, "height": 4}


@pytest.mark.parametrize("response", [None, ABSENT])
def test_no_response_gives_an_empty_result(response: Any) -> None:
    result = parse_response("annotation", response, None)
    assert (result.annotations, result.answer, result.error, result.warnings) == ([], None, None, [])


def test_every_task_type_is_registered_once() -> None:
    names = [known.name for known in TASK_TYPES]
    assert len(names) == len(set(names))
    assert task_type("never heard of") is GENERIC
    assert all(known.result_form in ("inline", "file", "answer") for known in TASK_TYPES)


def test_thousands_of_malformed_annotations_give_few_warnings() -> None:
    result = parse_response("annotation", {"annotations": [{}] * 5000}, None)
    assert len(result.annotations) == 5000
    assert len(result.warnings) == 21
    assert result.warnings[-1] == "… and 4980 more annotations were kept raw"
