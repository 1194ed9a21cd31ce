from typing import Any

import pytest

from workflows.definition.crops import Crop, Padding, Rect, crop_rect, from_crop, to_crop

BOX = {"type": "box", "left": 100, "top": 50, "width": 40, "height": 20}
TRIANGLE = {"type": "polygon", "vertices": [{"x": 10.5, "y": 20}, {"x": 30, "y": 5.2}, {"x": 20, "y": 40}]}


@pytest.mark.parametrize(
    ("annotation", "rect"),
    [
        (BOX, Rect(100, 50, 40, 20)),
        (TRIANGLE, Rect(10, 5, 20, 35)),
        ({"type": "point", "x": 7, "y": 9}, Rect(7, 9, 1, 1)),
        (
            {
                **BOX,
                "rotation": 0.8,
                "vertices": [
                    {"x": 90, "y": 60},
                    {"x": 120, "y": 40},
                    {"x": 150, "y": 60},
                    {"x": 120, "y": 80},
                ],
            },
            Rect(90, 40, 60, 40),
        ),
        ({"type": "box", "left": -10, "top": -5, "width": 30, "height": 20}, Rect(0, 0, 20, 15)),
    ],
)
def test_a_cut_is_the_bounding_box_in_whole_pixels_and_not_outside_at_the_left_or_top(
    annotation: Any, rect: Rect
) -> None:
    assert crop_rect(annotation, Crop()) == rect


@pytest.mark.parametrize(
    "annotation",
    [
        {},
        {"type": "box", "left": "1"},
        {"vertices": []},
        {"type": "event", "start": 1},
        {"left": -50, "top": 0, "width": 20, "height": 20},
        {"x": True, "y": 1},
    ],
)
def test_what_has_no_place_in_the_image_has_no_cut(annotation: Any) -> None:
    assert crop_rect(annotation, Crop()) is None


def test_padding_is_in_pixels_or_a_share_of_each_side() -> None:
    assert crop_rect(BOX, Crop(Padding(5, False))) == Rect(95, 45, 50, 30)
    assert crop_rect(BOX, Crop(Padding(0.1, True))) == Rect(96, 48, 48, 24)


def test_a_small_cut_grows_around_its_centre_and_keeps_its_size_at_the_border() -> None:
    assert crop_rect(BOX, Crop(min_size=64)) == Rect(88, 28, 64, 64)
    assert crop_rect({"x": 3, "y": 100}, Crop(min_size=64)) == Rect(0, 68, 64, 64)


CUBOID = {
    "type": "cuboid",
    "vertices": [{"description": "face-topleft", "x": 1, "y": 2, "type": "vertex"}],
    "edges": [{"description": "face-top", "x1": 1, "y1": 2, "x2": 3, "y2": 4, "type": "edge"}],
    "points_2d": [{"x": 1, "y": 2}],
    "points_3d": [{"x": 1, "y": 2, "z": 3}],
    "attributes": {"x": 5},
}


def test_every_coordinate_of_the_image_moves_and_nothing_else() -> None:
    assert to_crop(CUBOID, Rect(10, 20, 5, 5)) == {
        **CUBOID,
        "vertices": [{"description": "face-topleft", "x": -9, "y": -18, "type": "vertex"}],
        "edges": [{"description": "face-top", "x1": -9, "y1": -18, "x2": -7, "y2": -16, "type": "edge"}],
        "points_2d": [{"x": -9, "y": -18}],
    }


@pytest.mark.parametrize(
    "value",
    [
        BOX,
        TRIANGLE,
        CUBOID,
        {"type": "point", "x": 1, "y": 2},
        [BOX, TRIANGLE],
        {"boxes": [BOX]},
        {"annotations": [TRIANGLE]},
    ],
)
def test_what_goes_into_a_cut_comes_out_as_it_was(value: Any) -> None:
    crop = Rect(13, 7, 64, 64)
    assert from_crop(to_crop(value, crop), crop) == value
    assert to_crop(value, crop) != value
