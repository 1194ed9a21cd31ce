from typing import Any

import pytest

from tests.workflows.kit import made_by, seen
from workflows.definition.crops import Crop, Padding, Rect, crop_rect, from_crop, to_crop
from workflows.definition.recipes import crop_in, files, layers_file, mirrored, recipe, with_addresses

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


def test_the_result_of_a_cut_is_seen_in_the_coordinates_of_its_image() -> None:
    request = {"attachment": recipe("crop", of="a.png", left=100, top=50, width=64, height=64)}
    child = seen(
        "annotation",
        {"annotations": [{"left": 1, "top": 2, "width": 3, "height": 4}]},
        source=made_by("x", request=request),
    )
    assert child.annotations[0]["left"] == 1
    assert (child.uncropped[0]["left"], child.uncropped[0]["top"]) == (101, 52)
    assert seen("annotation", {"annotations": [BOX]}).uncropped[0]["left"] == 100


def test_the_files_of_a_request_are_found_and_replaced_by_their_addresses() -> None:
    request = {
        "attachment": recipe("crop", of="a.png", left=0, top=0, width=9, height=9),
        "attachments": ["b", recipe("mirror", of="c")],
        "layers": {"url": recipe("layers", task_id="1", response="d", labels=None)},
    }
    found = {file.path: file.make for file in files(request)}
    assert found == {("attachment",): "crop", ("attachments", 1): "mirror", ("layers", "url"): "layers"}
    assert with_addresses(
        request, {path: f"https://here.example/{make}" for path, make in found.items()}
    ) == {
        "attachment": "https://here.example/crop",
        "attachments": ["b", "https://here.example/mirror"],
        "layers": {"url": "https://here.example/layers"},
    }
    with pytest.raises(KeyError):
        with_addresses(request, {})


def test_addresses_are_mirrored_and_files_made_here_are_not() -> None:
    crop = recipe("crop", of="a.png", left=1, top=2, width=3, height=4)
    assert mirrored(
        {"attachment": "a", "attachments": ["b"], "text": "c"}, ("attachment", "attachments")
    ) == {
        "attachment": recipe("mirror", of="a"),
        "attachments": [recipe("mirror", of="b")],
        "text": "c",
    }
    assert mirrored({"attachment": crop}, ("attachment",)) == {"attachment": crop}
    assert crop_in({"attachment": crop}) == Rect(1, 2, 3, 4)
    assert crop_in({"attachment": recipe("mirror", of="a")}) is None


def test_a_layers_file_has_one_object_for_each_frame_also_the_empty_ones() -> None:
    annotations = [
        {**BOX, "label": "car", "frame": 1},
        {**BOX, "label": "bus", "frame": 4},
        {**TRIANGLE, "label": "car", "frame": 1},
    ]
    content = layers_file(annotations, 3)
    assert [sorted(one) for one in content] == [[], ["boxes", "polygons"], [], [], ["boxes"]]
    assert [sorted(one) for one in layers_file(annotations, 3, ["bus"])] == [[], [], [], [], ["boxes"]]
    assert "frame" not in content[1]["boxes"][0]
