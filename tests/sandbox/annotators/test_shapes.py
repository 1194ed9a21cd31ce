"""Tests for shapes of image tasks: within the image, of the requested sizes and labels, and from prelabels."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.annotators import AnnotatorContext, fix_response, make_response
from sandbox.annotators.shapes import GEOMETRIES, bounding_box, rotated_corners
from tests.sandbox.annotators.conftest import IMAGE, SHAPES

OF_TYPE = {
    "annotation": "box",
    "pointannotation": "point",
    "lineannotation": "line",
    "polygonannotation": "polygon",
    "cuboidannotation": "cuboid",
}
NEAR = 1e-6


def nowhere(content: bytes, media_type: str) -> str:
    raise AssertionError("an image task has no files")


def answered(
    params: dict[str, Any], *, seed: int = 1, type: str = "imageannotation", size: Any = None
) -> Any:
    return make_response(
        {"type": type, "params": IMAGE | params},
        AnnotatorContext(seed=seed, put_file=nowhere, image_size=lambda url: size),
    )


def coordinates(annotation: dict[str, Any]) -> list[tuple[float, float]]:
    """Every point that is drawn, corners of boxes included."""
    points = [(v["x"], v["y"]) for v in annotation.get("vertices", [])]
    points += [(e["x1"], e["y1"]) for e in annotation.get("edges", [])]
    points += [(e["x2"], e["y2"]) for e in annotation.get("edges", [])]
    if "width" in annotation:
        left, top = annotation["left"], annotation["top"]
        points += [(left, top), (left + annotation["width"], top + annotation["height"])]
    return points or [(annotation["x"], annotation["y"])]


sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
seeds = st.integers(0, 10_000)
geometries = st.fixed_dictionaries(
    {},
    optional={
        "min_width": st.integers(0, 300) | st.integers(0, 300).map(str),
        "min_height": st.floats(0, 300),
        "min_vertices": st.integers(0, 40),
        "can_rotate": st.booleans(),
        "integer_pixels": st.booleans(),
    },
)


@settings(max_examples=150, deadline=None)
@given(size=sizes, seed=seeds, kind=st.sampled_from(GEOMETRIES), geometry=geometries, again=st.booleans())
def test_shapes_stay_within_the_image_and_keep_the_sizes_asked_for(size, seed, kind, geometry, again) -> None:
    params = {"geometries": {kind: {"objects_to_annotate": ["thing"], **geometry}}}
    response = answered(params, seed=seed, size=size)
    if again:
        task = {"type": "imageannotation", "params": IMAGE | params}
        response = fix_response(
            task, response, AnnotatorContext(seed=seed, put_file=nowhere, image_size=lambda url: size)
        )
    assert response["annotations"]
    for annotation in response["annotations"]:
        assert annotation["type"] == kind
        for x, y in coordinates(annotation):
            assert -NEAR <= x <= size[0] + NEAR
            assert -NEAR <= y <= size[1] + NEAR
        drawn = bounding_box(annotation)
        if kind == "box":
            assert annotation["width"] > 0
            assert annotation["height"] > 0
        if kind in ("box", "cuboid") and not (kind == "cuboid" and geometry.get("integer_pixels")):
            width, height = (annotation.get("width", drawn.width), annotation.get("height", drawn.height))
            # A box is at least as large as asked, as far as the image and its rounding allow.
            assert width >= min(float(geometry.get("min_width", 0)), size[0]) - 0.011
            assert height >= min(float(geometry.get("min_height", 0)), size[1]) - 0.011
        if kind in ("polygon", "line"):
            assert len(annotation["vertices"]) >= max(
                geometry.get("min_vertices", 0), {"polygon": 3, "line": 2}[kind]
            )
        if geometry.get("integer_pixels"):
            assert all(isinstance(x, int) and isinstance(y, int) for x, y in coordinates(annotation))


@settings(max_examples=60, deadline=None)
@given(seed=seeds, low=st.integers(0, 12), more=st.integers(0, 6), kind=st.sampled_from(["polygon", "line"]))
def test_vertices_and_annotations_keep_their_limits(seed, low, more, kind) -> None:
    most = max(1, low + more)
    geometry = {"objects_to_annotate": ["thing"], "min_vertices": low, "max_vertices": most}
    params = {"geometries": {kind: geometry}, "min_annotations": low, "max_annotations": most}
    response = answered(params, seed=seed)
    assert low <= len(response["annotations"]) <= most
    assert all(low <= len(annotation["vertices"]) <= most for annotation in response["annotations"])
    for _ in range(3):
        task = {"type": "imageannotation", "params": IMAGE | params}
        response = fix_response(task, response, AnnotatorContext(seed=seed, put_file=nowhere))
        assert low <= len(response["annotations"]) <= most


def test_no_limit_is_written_as_zero() -> None:
    params = {"objects_to_annotate": ["car"], "min_annotations": 0, "max_annotations": 0}
    assert answered(params, type="cuboidannotation")["annotations"]


@pytest.mark.parametrize("type", OF_TYPE)
def test_labels_come_from_the_task_and_only_if_they_are_asked_for(type: str) -> None:
    for seed in range(10):
        objects = {"objects_to_annotate": ["car", "bus"]}
        labeled = answered(objects | {"with_labels": True}, type=type, seed=seed)["annotations"]
        assert {annotation["label"] for annotation in labeled} <= {"car", "bus"}
        bare = answered(objects | {"with_labels": False}, type=type, seed=seed)["annotations"]
        assert all(("label" in annotation) == (type == "cuboidannotation") for annotation in bare)
        assert all(annotation["geometry"] == OF_TYPE[type] for annotation in labeled)


def test_of_nested_labels_only_leaves_come_back() -> None:
    nested = [{"choice": "Vehicle", "subchoices": ["Car", {"choice": "Truck", "display": "Lorry"}]}, "Tree"]
    found = {
        annotation["label"]
        for seed in range(20)
        for annotation in answered({"objects_to_annotate": nested}, type="annotation", seed=seed)[
            "annotations"
        ]
    }
    assert found == {"Car", "Truck", "Tree"}


def test_each_geometry_of_a_mixed_task_is_drawn_with_its_own_labels() -> None:
    response = answered({"geometries": SHAPES})
    assert {annotation["type"] for annotation in response["annotations"]} == set(GEOMETRIES)
    for annotation in response["annotations"]:
        assert annotation["label"] in SHAPES[annotation["type"]]["objects_to_annotate"]


def test_a_rotated_box_has_its_unrotated_place_its_angle_and_its_corners() -> None:
    geometry = {"box": {"objects_to_annotate": ["car"], "can_rotate": True}}
    turned = [a for seed in range(20) for a in answered({"geometries": geometry}, seed=seed)["annotations"]]
    assert any(annotation["rotation"] for annotation in turned)
    for box in turned:
        corners = rotated_corners(box, box["rotation"])
        for (x, y), vertex in zip(corners, box["vertices"], strict=True):
            assert math.dist((x, y), (vertex["x"], vertex["y"])) < 0.02
        first, second, third, fourth = ((vertex["x"], vertex["y"]) for vertex in box["vertices"])
        assert math.dist(first, second) == pytest.approx(box["width"], abs=0.03)
        assert math.dist(second, third) == pytest.approx(box["height"], abs=0.03)
        assert math.dist(first, third) == pytest.approx(math.dist(second, fourth), abs=0.03)
        if box["rotation"] > 0:  # clockwise: the upper edge falls to the right
            assert box["vertices"][1]["y"] > box["vertices"][0]["y"]


def test_an_ellipse_has_its_four_extremal_points() -> None:
    response = answered({"geometries": {"ellipse": {"objects_to_annotate": ["wheel"]}}})
    for annotation in response["annotations"]:
        top, right, bottom, left = annotation["vertices"]
        assert top["y"] < right["y"] < bottom["y"]
        assert left["x"] < top["x"] < right["x"]


def test_splines_come_back_as_such() -> None:
    lines = answered({"objects_to_annotate": ["curb"], "splines": True}, type="lineannotation")["annotations"]
    assert all(annotation["spline"] is True for annotation in lines)


def test_a_cuboid_names_its_visible_vertices_and_the_edges_between_them() -> None:
    for cuboid in answered({"objects_to_annotate": ["van"]}, type="cuboidannotation")["annotations"]:
        at = {vertex["description"]: (vertex["x"], vertex["y"]) for vertex in cuboid["vertices"]}
        edges = {edge["description"]: edge for edge in cuboid["edges"]}
        assert len(at) == len(edges) == 6
        top = edges["side-top"]
        assert (top["x1"], top["y1"]) == at["face-topright"]
        assert (top["x2"], top["y2"]) == at["side-topcorner"]
        assert "points_2d" not in cuboid


def test_with_a_camera_a_cuboids_corners_in_space_project_onto_those_in_the_image() -> None:
    lens = {"fx": 1300, "fy": 1200, "cx": 480, "cy": 270, "scalefactor": 2, "skew": 3}
    camera = {"camera_intrinsics": lens, "camera_rotation_quaternion": {"w": 1, "x": 0, "y": 0, "z": 0}}
    for cuboid in answered({"objects_to_annotate": ["van"], **camera}, type="cuboidannotation")[
        "annotations"
    ]:
        assert len(cuboid["points_2d"]) == len(cuboid["points_3d"]) == 8
        for flat, deep in zip(cuboid["points_2d"], cuboid["points_3d"], strict=True):
            x, y = deep["x"] / deep["z"], deep["y"] / deep["z"]
            assert (lens["fx"] * x + lens["skew"] * y + lens["cx"]) / 2 == pytest.approx(flat["x"], abs=0.05)
            assert (lens["fy"] * y + lens["cy"]) / 2 == pytest.approx(flat["y"], abs=0.05)


def test_padding_lets_shapes_reach_beyond_the_image() -> None:
    params = {"geometries": {"point": {"objects_to_annotate": ["p"]}}, "padding": 1000, "paddingY": 0}
    found = [
        (annotation["x"], annotation["y"])
        for seed in range(40)
        for annotation in answered(params, seed=seed, size=(100, 100))["annotations"]
    ]
    assert min(x for x, _ in found) < 0
    assert max(x for x, _ in found) > 100
    assert all(-1000 <= x <= 1100 and 0 <= y <= 100 for x, y in found)


def test_boxes_are_drawn_around_the_layers_that_a_task_shows() -> None:
    house = {"label": "bus", "vertices": [{"x": 300, "y": 40}, {"x": 420, "y": 60}, {"x": 350, "y": 160}]}
    params = {"objects_to_annotate": ["car", "bus"], "with_labels": True, "layers": {"polygons": [house]}}
    first = answered(params, type="annotation", size=(640, 480))["annotations"][0]
    assert first["label"] == "bus"
    assert (first["left"], first["top"], first["width"], first["height"]) == (298, 38, 124, 124)


def test_layers_beyond_the_image_are_not_followed() -> None:
    far = {"label": "car", "left": 3000, "top": 10, "width": 20, "height": 20}
    params = {"objects_to_annotate": ["car"], "layers": {"boxes": [far]}}
    for box in answered(params, type="annotation", size=(640, 480))["annotations"]:
        assert box["width"] > 10
        assert box["left"] + box["width"] <= 640


def prelabeled() -> list[dict[str, Any]]:
    return [
        {"type": "box", "label": "car", "uuid": "one", "left": 2000, "top": 10, "width": 50, "height": 40},
        {
            "geometry": "polygon",
            "label": "house",
            "vertices": [{"x": 1.5, "y": 1}, {"x": 9, "y": 2}, {"x": 5, "y": 8}],
        },
        {"type": "something", "label": "car", "uuid": "three", "cells": [1]},
    ]


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_a_hypothesis_comes_back_slightly_changed_under_its_uuids(seed: int) -> None:
    params = {
        "geometries": SHAPES,
        "hypothesis": {"annotations": prelabeled(), "global_attributes": {"x": 1}},
    }
    box, polygon, other = answered(params, seed=seed)["annotations"][:3]
    assert box["uuid"] == "one"
    assert box["label"] == "car"
    assert (box["width"], box["height"]) == (50, 40)
    assert 0 < math.dist((box["left"], box["top"]), (2000, 10)) < 40
    assert polygon["type"] == "polygon"
    assert "geometry" not in polygon
    assert polygon["uuid"]
    assert polygon["vertices"] != prelabeled()[1]["vertices"]
    assert other == prelabeled()[2]


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_locked_base_annotations_are_unchanged_by_response_and_fix(seed: int) -> None:
    attributes = {"parked": {"choices": ["Yes", "No"]}}
    params = IMAGE | {
        "geometries": SHAPES,
        "annotation_attributes": attributes,
        "base_annotations": {"annotations": prelabeled()},
        "can_edit_base_annotations": False,
        "can_add_base_annotations": False,
    }
    response = answered(params, seed=seed)
    task = {"type": "imageannotation", "params": params}
    fixed = fix_response(task, response, AnnotatorContext(seed=seed, put_file=nowhere))
    for current in (response, fixed):
        assert len(current["annotations"]) == 3
        for given_one, kept in zip(prelabeled(), current["annotations"], strict=True):
            kind = given_one.pop("geometry", given_one.get("type"))
            assert {**given_one, "type": kind, "uuid": kept["uuid"]} == kept


def test_annotations_are_added_to_base_annotations_only_where_they_may() -> None:
    base = {"geometries": SHAPES, "base_annotations": {"annotations": prelabeled()}}
    counts = {len(answered(base, seed=seed)["annotations"]) for seed in range(20)}
    assert counts == {3, 4}
    locked = base | {"can_add_base_annotations": False}
    assert {len(answered(locked, seed=seed)["annotations"]) for seed in range(20)} == {3}


def test_a_prelabel_without_room_to_move_is_unchanged() -> None:
    full = {"type": "box", "label": "car", "uuid": "a", "left": 0, "top": 0, "width": 10, "height": 10}
    params = {"geometries": SHAPES, "hypothesis": {"annotations": [full]}}
    assert answered(params, size=(10, 10))["annotations"][0] == full


def test_links_join_annotations_of_the_labels_they_allow() -> None:
    links = {"belongs to": [{"from_allowed_labels": ["headlight"], "to_allowed_labels": ["car", "bus"]}]}
    response = answered({"geometries": SHAPES, "links": links})
    by_uuid = {annotation["uuid"]: annotation["label"] for annotation in response["annotations"]}
    assert [by_uuid[response["links"][0]["from"]], response["links"][0]["label"]] == [
        "headlight",
        "belongs to",
    ]
    assert by_uuid[response["links"][0]["to"]] in ("car", "bus")
