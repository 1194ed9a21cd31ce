"""Responses in the forms of a follow-up request."""

import json
from pathlib import Path
from typing import Any

from scale.layers import base_annotations, flatten, hypothesis, layers

PAYLOADS = Path(__file__).parents[1] / "payloads"


def recorded(name: str) -> Any:
    return json.loads((PAYLOADS / name).read_text())


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


def test_a_hypothesis_names_the_shape_by_type_and_omits_the_mark_of_a_fix() -> None:
    response = recorded("annotation/fixed.json")["response"]
    made = hypothesis(response, "annotation")
    assert {item["type"] for item in made["annotations"]} == {"box"}
    assert not any("geometry" in item for item in made["annotations"])
    assert "is_customer_fix" not in made
    assert base_annotations(response, "annotation") == {"annotations": made["annotations"]}


def test_no_hypothesis_is_made_of_a_segmentation_without_indexes() -> None:
    assert hypothesis({"annotations": {"labeled": {}}, "labelMapping": {}}, "segmentannotation") == {}
