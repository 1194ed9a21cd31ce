"""Tests for sandbox.engine.parameters."""

from typing import Any

import pytest

from sandbox.engine.parameters import check_request
from sandbox.errors import ScaleError
from sandbox.examples import EXAMPLES, example
from scale.task_types import CREATABLE

REQUIRED = [(known.name, names) for known in CREATABLE for names in known.request.required]


def refusal(type_name: str, **changes: Any) -> str:
    """The words in which the example of a type is refused once it is changed so; None takes a parameter away."""
    request = {**example(type_name), **changes}
    with pytest.raises(ScaleError) as refused:
        check_request(type_name, request)
    assert refused.value.status == 400
    return refused.value.message


def taken(type_name: str, **changes: Any) -> dict[str, Any]:
    return check_request(type_name, {**example(type_name), **changes}).params


def test_there_is_an_example_of_every_type_that_scale_knows():
    assert set(EXAMPLES) == {known.name for known in CREATABLE}


@pytest.mark.parametrize("type_name", EXAMPLES)
def test_the_example_of_a_type_is_valid(type_name: str):
    checked = check_request(type_name, {**example(type_name), "callback_url": "https://example.com/cb"})
    assert checked.general["callback_url"] == "https://example.com/cb"
    assert "callback_url" not in checked.params


@pytest.mark.parametrize(("type_name", "names"), REQUIRED)
def test_a_missing_required_parameter_is_refused_in_scales_wording(type_name: str, names: tuple[str, ...]):
    message = refusal(type_name, **dict.fromkeys(names))
    assert (
        message
        == f"Parameter is invalid, reason: {' or '.join(f'{chr(34)}{n}{chr(34)}' for n in names)} is required"
    )


@pytest.mark.parametrize(("type_name", "names"), REQUIRED)
def test_parameters_of_the_project_are_not_missing(type_name: str, names: tuple[str, ...]):
    whole = example(type_name)
    supplied = {name: whole.pop(name) for name in names if name in whole}
    assert check_request(type_name, whole, supplied)


def test_an_unknown_type_is_refused():
    with pytest.raises(ScaleError, match="not a valid task type"):
        check_request("paintannotation", {"attachment": "https://example.com/x.jpg"})


@pytest.mark.parametrize(
    ("type_name", "name", "most"),
    [(known.name, name, most) for known in CREATABLE for name, most in known.request.max_items.items()],
)
def test_a_list_has_a_maximum_length(type_name: str, name: str, most: int):
    assert taken(type_name, **{name: [f"label {n}" for n in range(most)]})
    assert f'"{name}"' in refusal(type_name, **{name: [f"label {n}" for n in range(most + 1)]})


BOX_LAYER = {"boxes": [{"left": 1, "top": 2, "width": 3, "height": 4}]}


@pytest.mark.parametrize(
    "type_name",
    [
        "annotation",
        "pointannotation",
        "lineannotation",
        "polygonannotation",
        "cuboidannotation",
        "imageannotation",
    ],
)
def test_types_that_draw_on_images_take_layers(type_name: str):
    assert taken(type_name, layers=BOX_LAYER)["layers"] == BOX_LAYER


@pytest.mark.parametrize("type_name", ["segmentannotation", "comparison", "transcription"])
def test_other_types_take_no_layers(type_name: str):
    assert "layers" in refusal(type_name, layers=BOX_LAYER)


def test_a_categorization_takes_layers_on_images_only():
    assert taken(
        "categorization", attachment_type="image", attachment="https://x.example/1.jpg", layers=BOX_LAYER
    )
    assert "layers" in refusal("categorization", layers=BOX_LAYER)


@pytest.mark.parametrize(
    "layers",
    [
        {"points": [{"x": 1, "y": 2}]},
        {"boxes": [{"left": 1, "top": 2, "width": 3}]},
        {"polygons": [{"label": "car"}]},
        {"cuboids": [{"vertices": [{"x": 1, "y": 2}]}]},
        {"lines": {}},
    ],
)
def test_layers_of_another_form_are_refused(layers: dict[str, Any]):
    assert "layers" in refusal("annotation", layers=layers)


def attributes(**asks: list[str]) -> dict[str, Any]:
    return {
        name: {
            "description": name,
            "choices": ["Yes", "No"],
            "conditions": {"attribute_conditions": [{other: "Yes"} for other in others]},
        }
        for name, others in asks.items()
    }


def test_attributes_may_depend_on_each_other():
    assert taken("annotation", annotation_attributes=attributes(a=[], b=["a"], c=["a", "b"], d=["c", "a"]))


@pytest.mark.parametrize(
    "circle", [{"a": ["a"]}, {"a": ["b"], "b": ["a"]}, {"a": ["b"], "b": ["c", "d"], "c": [], "d": ["a"]}]
)
def test_attributes_that_depend_on_each_other_in_a_circle_are_refused(circle: dict[str, list[str]]):
    assert "circle" in refusal("annotation", annotation_attributes=attributes(**circle))


@pytest.mark.parametrize(
    ("type_name", "changes"),
    [
        ("annotation", {"attachment_type": "video"}),
        ("annotation", {"attachment": 5}),
        ("annotation", {"objects_to_annotate": "car"}),
        ("annotation", {"min_width": "wide"}),
        ("annotation", {"min_width": True}),
        ("annotation", {"with_labels": "perhaps"}),
        ("annotation", {"min_height": -1}),
        ("annotation", {"annotation_attributes": {"a": {"type": "colour"}}}),
        ("annotation", {"annotation_attributes": {"a": {"type": "number", "min": 5, "max": 1}}}),
        ("polygonannotation", {"min_vertices": 5, "max_vertices": 4}),
        ("cuboidannotation", {"min_annotations": 5, "max_annotations": 4}),
        ("imageannotation", {"geometries": {"blob": {}}}),
        ("imageannotation", {"base_annotations": {}}),
        ("imageannotation", {"hypothesis": {"global_attributes": {}}}),
        (
            "imageannotation",
            {"context_attachments": [{"attachment": EXAMPLES["imageannotation"]["attachment"]}]},
        ),
        ("videoannotation", {"attachment_type": "video"}),
        ("annotation", {"callback_url": "nowhere"}),
        ("annotation", {"callback_url": "http://127.0.0.1:99999/"}),
        ("annotation", {"callback_url": "http://[::1"}),
        ("annotation", {"urgency": "never"}),
        ("annotation", {"unique_id": ""}),
        ("annotation", {"unique_id": 7}),
        ("annotation", {"tags": ["1", "2", "3", "4", "5", "6"]}),
        ("annotation", {"tags": [1]}),
        ("annotation", {"tags": [{}]}),
        ("annotation", {"dependents": 5}),
        ("annotation", {"dependents": {"defs": 5}}),
        ("annotation", {"dependents": {"defs": [{}]}}),
        ("annotation", {"dependents": {"defs": [{"type": "none"}]}}),
        ("annotation", {"dependents": {"defs": [{"type": "chat", "callback_url": 7}]}}),
        ("annotation", {"dependents": {"defs": [{"type": "chat", "metadata": 5}]}}),
        ("annotation", {"dependents": {"defs": [{"type": "chat", "tags": {}}]}}),
        ("annotation", {"metadata": []}),
        ("annotation", {"metadata": {"much": "x" * 10 * 1024}}),
    ],
)
def test_an_invalid_parameter_is_refused(type_name: str, changes: dict[str, Any]):
    assert refusal(type_name, **changes).startswith("Parameter is invalid, reason: ")


def test_an_email_address_and_both_schemes_are_callback_urls():
    for url in ("team@example.com", "http://127.0.0.1:9/x", "https://example.com"):
        assert check_request("chat", {"callback_url": url}).general["callback_url"] == url


def test_numbers_sent_as_text_become_numbers():
    params = taken("annotation", min_width="30", min_height="4.5", with_labels="true")
    assert (params["min_width"], params["min_height"], params["with_labels"]) == (30, 4.5, True)


def test_a_repeatable_field_becomes_an_object_with_its_description():
    params = taken(
        "transcription", repeatable_fields={"amount": "Sum", "kind": {"description": "k", "choices": ["a"]}}
    )
    assert params["repeatable_fields"]["amount"] == {"description": "Sum"}
    assert params["repeatable_fields"]["kind"]["choices"] == ["a"]


def test_empty_layers_have_no_effect():
    for nothing in ("", [], {}):
        assert taken("annotation", layers=nothing)["objects_to_annotate"]


def test_null_is_the_same_as_left_out():
    assert taken("annotation", layers=None, min_width=None) == taken("annotation", min_width=None)


def test_the_instruction_of_the_project_is_appended_and_other_params_are_defaults():
    own = {**example("annotation"), "instruction": "Own.", "min_width": 7}
    checked = check_request(
        "annotation", own, {"instruction": "The project's.", "min_width": 1, "splines": True}
    )
    assert checked.general["instruction"] == "Own.\nThe project's."
    assert (checked.params["min_width"], checked.params["splines"]) == (7, True)


UNKNOWN: dict[str, Any] = {
    "shiny_new_parameter": {"any": ["value"]},
    "start_time": "half past ten",
    "padding": {"left": 3},
    "splines": "sometimes",
}


@pytest.mark.parametrize(
    ("type_name", "name"),
    [(known.name, name) for known in CREATABLE for name in UNKNOWN if name not in known.request.names],
)
def test_a_parameter_that_the_table_of_the_type_does_not_know_is_accepted_as_it_is(type_name: str, name: str):
    params = check_request(type_name, {**example(type_name), name: UNKNOWN[name]}).params
    assert params[name] == UNKNOWN[name]


def test_a_categorization_may_have_taxonomies_instead_of_categories():
    taxonomies = {
        "weather": {
            "type": "category",
            "description": "w",
            "choices": ["sun", "rain"],
            "allow_multiple": False,
        }
    }
    request = {**example("categorization"), "categories": None, "taxonomies": taxonomies}
    assert check_request("categorization", request).params["taxonomies"] == taxonomies
