import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scale.annotations import reader
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
def test_no_response_says_nothing(response: Any) -> None:
    result = parse_response("annotation", response, None)
    assert (result.annotations, result.answer, result.error, result.warnings) == ([], None, None, [])


def test_every_task_type_is_registered_once() -> None:
    names = [known.name for known in TASK_TYPES]
    assert len(names) == len(set(names))
    assert task_type("never heard of") is GENERIC
    assert all(known.result_form in ("inline", "file", "answer") for known in TASK_TYPES)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"left": 1, "top": 2, "height": 4}, "width is missing"),
        ({"left": "1", "top": 2, "width": 3, "height": 4}, "left is a string, not a number"),
        ({"left": True, "top": 2, "width": 3, "height": 4}, "left is a boolean, not a number"),
        (
            {"left": float("nan"), "top": 2, "width": 3, "height": 4},
            "left is not a finite number, not a number",
        ),
        ({"left": 1, "top": 2, "width": None, "height": 4}, "width is null, not a number"),
        (
            {"left": 1, "top": 2, "width": 3, "height": 4, "rotation": "x"},
            "rotation is a string, not a number",
        ),
        ({"type": "polygon"}, "vertices is missing"),
        ({"type": "polygon", "vertices": {}}, "vertices is an object, not a list"),
        ({"type": "polygon", "vertices": []}, "vertices has 0 of at least 1"),
        ({"type": "line", "vertices": [{"x": 1, "y": 1}, {"x": 1}]}, "vertices[1].y is missing"),
        ({"type": "line", "vertices": [[1, 2]]}, "vertices[0] is a list, not an object"),
        ({"type": "point", "x": 1}, "y is missing"),
        ({"type": "ellipse", "vertices": [{"x": 1, "y": 1}]}, "vertices has 1 of at least 4"),
        (
            {"type": "cuboid", "vertices": [{"x": 1, "y": 1}], "edges": "none"},
            "edges is a string, not a list",
        ),
        ({"type": "blob"}, "no shape 'blob' is known here"),
        ({"type": 7}, "type is a number, not a string"),
    ],
)
def test_a_flag_names_the_position_and_the_field(item: dict[str, Any], reason: str) -> None:
    row = reader("box")(item, 3)
    assert row.warning == f"annotation 3: {reason}"
    assert row.geometry == item
    assert reader("box")(item, 3, 12).warning == f"frame 12, annotation 3: {reason}"


def test_a_box_says_left_and_top_where_a_file_says_x_and_y() -> None:
    row = reader("box")({"x": 1.5, "y": -2, "width": 3, "height": 4, "timestamp": 0.03}, 0, 7)
    assert row.geometry == {"left": 1.5, "top": -2, "width": 3, "height": 4, "timestamp": 0.03}
    assert (row.frame, row.warning) == (7, None)


def test_the_type_counts_before_the_geometry_and_that_before_what_the_task_implies() -> None:
    point = {"x": 1, "y": 2, "type": "point", "geometry": "box"}
    assert reader("polygon")(point, 0).type == "point"
    assert reader("polygon")({"x": 1, "y": 2, "geometry": "point"}, 0).type == "point"
    assert reader("point")({"x": 1, "y": 2}, 0).type == "point"
    assert reader(None)({"x": 1, "y": 2}, 0).type == "unknown"


def test_a_geometry_that_is_no_word_stays_with_the_annotation() -> None:
    row = reader("point")({"x": 1, "y": 2, "geometry": {"crs": "local"}}, 0)
    assert (row.type, row.geometry) == ("point", {"x": 1, "y": 2, "geometry": {"crs": "local"}})


def test_a_linked_box_has_the_uuid_of_its_cuboid() -> None:
    item = {"cuboid_uuid": "c-1", "left": 1, "top": 2, "width": 3, "height": 4, "not_in_lidar": True}
    row = reader("box")(item, 0)
    assert row.uuid == "c-1"
    assert row.geometry["not_in_lidar"] is True


def test_a_lidar_cuboid_keeps_its_camera_and_its_counts() -> None:
    item = {
        "uuid": "C-1",
        "camera_used": 2,
        "label": "tractor",
        "position": {"x": 1, "y": 2.5, "z": -1},
        "dimensions": {"x": 4, "y": 2, "z": 3},
        "yaw": 1.57,
        "stationary": False,
        "numberOfPoints": 40,
    }
    row = reader("cuboid3d", discriminated=False)(item, 0, 5)
    assert (row.type, row.label, row.uuid, row.frame, row.warning) == ("cuboid3d", "tractor", "C-1", 5, None)
    assert row.geometry == {key: item[key] for key in item if key not in ("uuid", "label")}


def test_an_event_keeps_whether_it_is_a_range_or_a_point() -> None:
    row = reader("event", discriminated=False)(
        {"label": "gate opens", "type": "range", "start": 3, "end": 9}, 0
    )
    assert (row.type, row.geometry, row.warning) == ("event", {"type": "range", "start": 3, "end": 9}, None)


def test_thousands_of_wrong_annotations_are_told_in_few_words() -> None:
    result = parse_response("annotation", {"annotations": [{}] * 5000}, None)
    assert len(result.annotations) == 5000
    assert len(result.warnings) == 21
    assert result.warnings[-1] == "… and 4980 more annotations were kept raw"


def test_polygons_become_the_layer_of_the_boxes_that_follow() -> None:
    response = recorded("polygonannotation/polygons.json")["response"]
    found, left_out = layers(flatten("polygonannotation", response, None))
    assert found == recorded("requests/boxes_after_polygons.json")["layers"]
    assert left_out == []


def test_a_mixed_response_is_split_into_the_layers_that_scale_has() -> None:
    response = recorded("imageannotation/every_shape.json")["response"]
    found, left_out = layers(flatten("imageannotation", response, None))
    assert found == recorded("requests/layers_of_every_shape.json")
    assert left_out == [
        "1 ellipse annotation left out of the layers: Scale has no layer for this shape",
        "1 point annotation left out of the layers: Scale has no layer for this shape",
    ]


def test_a_cuboid_whose_vertices_have_no_names_is_left_out_of_the_layers() -> None:
    found, left_out = layers([{"type": "cuboid", "vertices": [{"x": 1, "y": 2}]}] * 2)
    assert found == {}
    assert left_out == ["2 cuboid annotations left out of the layers: a vertex has no description"]


def test_flat_annotations_always_have_a_type_and_a_frame() -> None:
    response = {
        "annotations": [
            {"label": "sheep", "left": 1, "top": 2, "width": 3, "height": 4, "geometry": "box"},
            "?",
        ]
    }
    assert flatten("annotation", response, None) == [
        {"label": "sheep", "left": 1, "top": 2, "width": 3, "height": 4, "type": "box", "frame": None},
        {"value": "?", "type": "box", "frame": None},
    ]


def test_a_hypothesis_names_the_shape_by_type_and_leaves_out_what_was_said_of_the_fix() -> None:
    response = recorded("annotation/fixed.json")["response"]
    made = hypothesis(response, "annotation")
    assert {item["type"] for item in made["annotations"]} == {"box"}
    assert not any("geometry" in item for item in made["annotations"])
    assert "is_customer_fix" not in made
    assert base_annotations(response, "annotation") == {"annotations": made["annotations"]}


def test_no_hypothesis_is_made_of_a_segmentation_without_indexes() -> None:
    assert hypothesis({"annotations": {"labeled": {}}, "labelMapping": {}}, "segmentannotation") == {}
