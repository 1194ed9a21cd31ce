"""Annotation objects as rows."""

from typing import Any

import pytest

from scale.annotations import events_of_clips, reader, shape_of_task
from scale.task_types import parse_response


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
def test_a_warning_names_the_position_and_the_field(item: dict[str, Any], reason: str) -> None:
    row = reader("box")(item, 3)
    assert row.warning == f"annotation 3: {reason}"
    assert row.geometry == item
    assert reader("box")(item, 3, 12).warning == f"frame 12, annotation 3: {reason}"


def test_a_box_has_left_and_top_also_where_a_file_has_x_and_y() -> None:
    row = reader("box")({"x": 1.5, "y": -2, "width": 3, "height": 4, "timestamp": 0.03}, 0, 7)
    assert row.geometry == {"left": 1.5, "top": -2, "width": 3, "height": 4, "timestamp": 0.03}
    assert (row.frame, row.warning) == (7, None)


def test_the_type_counts_before_the_geometry_and_that_before_what_the_task_implies() -> None:
    point = {"x": 1, "y": 2, "type": "point", "geometry": "box"}
    assert reader("polygon")(point, 0).type == "point"
    assert reader("polygon")({"x": 1, "y": 2, "geometry": "point"}, 0).type == "point"
    assert reader("point")({"x": 1, "y": 2}, 0).type == "point"
    assert reader(None)({"x": 1, "y": 2}, 0).type == "unknown"


def test_a_geometry_that_is_no_string_stays_with_the_annotation() -> None:
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


@pytest.mark.parametrize(
    ("params", "shape"),
    [
        ({"geometries": {"box": {}}}, "box"),
        ({"geometries": {"cuboid": {"camera_height": 1}}}, "cuboid"),
        ({"geometries": {"box": {}, "line": {}}}, None),
        ({"geometries": {"blob": {}}}, None),
        ({"geometries": ["box"]}, None),
        ({"annotation_type": "annotation"}, "box"),
        ({"annotation_type": "polygonannotation"}, "polygon"),
        ({"annotation_type": "line"}, "line"),
        ({"annotation_type": "categorization"}, None),
        ({"annotation_type": 7}, None),
        ({}, None),
    ],
)
def test_a_task_that_asks_for_one_shape_names_it(params: dict[str, Any], shape: str | None) -> None:
    assert shape_of_task(params) == shape


@pytest.mark.parametrize(
    ("item", "uuid"),
    [
        ({"id": "a"}, "a"),
        ({"id": 7}, "7"),
        ({"id": {"of": "another kind"}}, None),
        ({"cuboid_uuid": "c", "id": "a"}, "c"),
        ({"uuid": "u", "id": "a", "cuboid_uuid": "c"}, "u"),
    ],
)
def test_an_id_is_the_uuid_where_there_is_none(item: dict[str, Any], uuid: str | None) -> None:
    assert reader("point")({**item, "x": 1, "y": 2}, 0).uuid == uuid


@pytest.mark.parametrize(
    "item",
    [
        {"type": "cuboid", "position": {"x": 1, "y": 2, "z": 3}, "dimensions": {"x": 1, "y": 2, "z": 3}},
        {"geometry": "cuboid", "path": {"timestamps": [1], "values": [[1, 2, 3, 0, 0, 0, 1, 1, 1]]}},
        {"cuboid": {"position": {"x": 1, "y": 2, "z": 3}, "dimensions": {"x": 1, "y": 2, "z": 3}, "yaw": 0}},
    ],
)
def test_a_cuboid_in_space_is_not_one_of_an_image(item: dict[str, Any]) -> None:
    row = reader(None)(item, 0)
    assert (row.type, row.warning) == ("cuboid3d", None)
    drawn = {"type": "cuboid", "vertices": [{"x": 1, "y": 2}]}
    assert reader(None)(drawn, 0).type == "cuboid"


@pytest.mark.parametrize(
    ("clip", "times"),
    [
        ({"timestamps": [1, 4]}, (1, 4, 3)),
        ({"timestamp": 2, "duration": 3}, (2, 5, 3)),
        ({"timestamp_secs": 2.5, "end": 3}, (2.5, 3, 0.5)),
        ({"start": 1, "end": 2, "timestamps": [7, 9]}, (1, 2, 1)),
        ({"timestamps": [6]}, (6, None, None)),
    ],
)
def test_a_clip_is_an_event_with_start_and_duration(clip: dict[str, Any], times: tuple[Any, ...]) -> None:
    response = {"annotations": [{"label": "a", "uuid": "u", "clips": [{**clip, "text": "x"}]}]}
    (row,) = (
        parse_response("videoannotation", {**response}, {}).annotations
        or parse_response("generic", response, {}).annotations
    )
    assert (row.type, row.label, row.uuid, row.geometry["text"]) == ("event", "a", "u", "x")
    assert tuple(row.geometry.get(key) for key in ("start", "end", "duration")) == times


def test_clips_of_unequal_lists_and_odd_ones_are_kept() -> None:
    assert events_of_clips({"clips": {"timestamps": [1, 2], "text": ["a"]}}) == [
        {"start": 1, "timestamp": 1, "text": "a"},
        {"start": 2, "timestamp": 2},
    ]
    assert events_of_clips({"clips": ["odd"]}) == ["odd"]
    assert events_of_clips({"clips": "odd"}) is None
