"""Tests for sandbox.annotators.attributes: values satisfy definitions and conditions."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.annotators import AnnotatorContext, fix_response, make_response
from sandbox.annotators.attributes import allows, applies, choose_attributes
from tests.sandbox.annotators.conftest import IMAGE

names = st.sampled_from(["parked", "heading", "size", "note", "side"])
choices = st.lists(st.sampled_from(["Yes", "No", "left", "right"]), min_size=1, max_size=3, unique=True)
few = choices | st.sampled_from(["Yes", "No", "left"])
conditions = st.fixed_dictionaries(
    {},
    optional={
        "label_condition": st.fixed_dictionaries({"label": st.sampled_from(["car", ["car", "bus"], "tree"])})
        | st.sampled_from(["car", ["bus"]]),
        "attribute_conditions": st.dictionaries(names, few, max_size=2)
        | st.lists(st.dictionaries(names, few, min_size=1, max_size=1), max_size=2),
    },
)
definitions = st.one_of(
    st.fixed_dictionaries(
        {"choices": choices}, optional={"allow_multiple": st.booleans(), "conditions": conditions}
    ),
    st.fixed_dictionaries(
        {"type": st.just("number")},
        optional={"min": st.integers(-50, 5), "max": st.floats(6, 60), "conditions": conditions},
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["angle", "text", "x_line", "y_line"])}, optional={"conditions": conditions}
    ),
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(names, definitions, max_size=5),
    st.sampled_from(["car", "bus", None]),
    st.integers(0, 999),
)
def test_values_are_allowed_and_there_exactly_where_the_conditions_hold(defined, label, seed) -> None:
    values = choose_attributes(defined, label, random.Random(seed), extent=(30, 20))
    assert list(values) == [name for name in defined if name in values]
    for name, value in values.items():
        assert allows(defined[name], value)
        assert applies(defined[name], label, values)
    for name, definition in defined.items():
        asked = definition.get("conditions", {}).get("attribute_conditions") or {}
        if not asked:
            assert (name in values) == applies(definition, label, values)
    assert 0 <= values.get("x_line", 0) <= 30


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 10), st.integers(0, 99))
def test_a_number_is_within_its_bounds_and_whole_where_it_can_be(low, width, seed) -> None:
    value = choose_attributes(
        {"n": {"type": "number", "min": low, "max": low + width}}, None, random.Random(seed)
    )["n"]
    assert low <= value <= low + width
    assert isinstance(value, int) or width < 1 or value != round(value)


def test_the_published_example_satisfies_its_conditions() -> None:
    defined = {
        "parked": {"description": "Is the car currently parked?", "choices": ["Yes", "No"]},
        "heading": {
            "choices": ["left", "right", "back", "front"],
            "conditions": {"label_condition": {"label": "car"}, "attribute_conditions": [{"parked": "No"}]},
        },
    }
    params = IMAGE | {
        "objects_to_annotate": ["car", "bus"],
        "with_labels": True,
        "annotation_attributes": defined,
    }
    found = [
        annotation
        for seed in range(30)
        for annotation in make_response(
            {"type": "annotation", "params": params}, AnnotatorContext(seed=seed, put_file=unused)
        )["annotations"]
    ]
    for annotation in found:
        asked = annotation["label"] == "car" and annotation["attributes"]["parked"] == "No"
        assert ("heading" in annotation["attributes"]) == asked
    assert {annotation["attributes"].get("heading") for annotation in found} == {
        "left",
        "right",
        "back",
        "front",
        None,
    }


def unused(content: bytes, media_type: str) -> str:
    raise AssertionError("no files here")


def test_an_annotation_to_which_no_attribute_applies_has_no_attributes() -> None:
    defined = {"heading": {"choices": ["left"], "conditions": {"label_condition": {"label": "car"}}}}
    params = IMAGE | {"objects_to_annotate": ["bus"], "with_labels": True, "annotation_attributes": defined}
    found = make_response(
        {"type": "annotation", "params": params}, AnnotatorContext(seed=1, put_file=unused)
    )["annotations"]
    assert all("attributes" not in annotation for annotation in found)


def test_several_options_come_as_an_array() -> None:
    defined = {"marks": {"choices": ["a", {"choice": "b", "subchoices": ["c", "d"]}], "allow_multiple": True}}
    values = [choose_attributes(defined, None, random.Random(seed))["marks"] for seed in range(30)]
    assert {entry for value in values for entry in value} == {"a", "c", "d"}
    assert {len(value) for value in values} == {1, 2, 3}


def test_a_linked_attribute_names_another_annotation_of_an_allowed_label() -> None:
    defined: dict[str, Any] = {"tows": {"type": "linked", "allowed_labels": ["trailer"]}}
    params = IMAGE | {
        "objects_to_annotate": ["car", "trailer"],
        "with_labels": True,
        "annotation_attributes": defined,
        "min_annotations": 8,
    }
    found = make_response(
        {"type": "annotation", "params": params}, AnnotatorContext(seed=1, put_file=unused)
    )["annotations"]
    by_uuid = {annotation["uuid"]: annotation for annotation in found}
    linked = [annotation for annotation in found if annotation.get("attributes")]
    assert linked
    for annotation in linked:
        assert annotation["attributes"]["tows"] != annotation["uuid"]
        assert by_uuid[annotation["attributes"]["tows"]]["label"] == "trailer"


def test_a_fix_keeps_both_ends_of_every_link() -> None:
    params = IMAGE | {"objects_to_annotate": ["car"], "annotation_attributes": {"tows": {"type": "linked"}}}
    task = {"type": "annotation", "params": params}
    for seed in range(40):
        response = make_response(task, AnnotatorContext(seed=seed, put_file=unused))
        for _ in range(4):
            response = fix_response(task, response, AnnotatorContext(seed=seed, put_file=unused))
        uuids = {annotation["uuid"] for annotation in response["annotations"]}
        named = {value for a in response["annotations"] for value in a.get("attributes", {}).values()}
        assert named <= uuids


def test_attributes_of_the_image_are_separate_from_the_annotations() -> None:
    defined = {"weather": {"choices": ["rain", "sun"], "global": True}, "parked": {"choices": ["Yes"]}}
    params = IMAGE | {"objects_to_annotate": ["car"], "annotation_attributes": defined}
    response = make_response(
        {"type": "annotation", "params": params}, AnnotatorContext(seed=1, put_file=unused)
    )
    assert response["global_attributes"]["weather"] in ("rain", "sun")
    assert all(annotation["attributes"] == {"parked": "Yes"} for annotation in response["annotations"])


def test_conditions_that_turn_in_a_circle_are_never_met() -> None:
    defined = {
        "a": {"choices": ["x"], "conditions": {"attribute_conditions": {"b": "x"}}},
        "b": {"choices": ["x"], "conditions": {"attribute_conditions": {"a": "x"}}},
    }
    assert choose_attributes(defined, "car", random.Random(1)) == {}
