"""Points of lidar frames."""

from array import array

import pytest

from pipeline.datasets.points import camera_image, points_of, segments_of


@pytest.mark.parametrize(
    "content", [b'{"points": [{"x": 1, "y": 2.5, "z": -3, "i": 9}, {"x": "1"}, 5]}', b"[[1, 2.5, -3]]"]
)
def test_points_are_three_floats_each_and_a_color(content: bytes) -> None:
    assert array("f", points_of(content)).tolist() == [1, 2.5, -3, -1]
    assert array("f", points_of(content, [7])).tolist() == [1, 2.5, -3, 7]


def test_a_color_stays_with_its_point_when_another_has_no_place() -> None:
    assert array("f", points_of(b'[{"x": 1}, [1, 2, 3], [4, 5, 6]]', [5, 6])).tolist() == [
        1,
        2,
        3,
        6,
        4,
        5,
        6,
        -1,
    ]


@pytest.mark.parametrize("content", [b"", b"PCD", b'{"points": 1}', b"1"])
def test_a_file_of_another_form_has_no_points(content: bytes) -> None:
    assert points_of(content) == b""


@pytest.mark.parametrize("key", ["point_objects", "point_labels"])
def test_segments_are_those_of_the_frame(key: str) -> None:
    content = f'{{"objects": [], "{key}": [[1], [0, 2], 5]}}'.encode()
    assert [segments_of(content, frame) for frame in range(4)] == [[1], [0, 2], [], []]
    assert segments_of(b"[1]", 0) == segments_of(b"", 0) == []


def test_a_frame_names_the_images_of_its_cameras() -> None:
    content = b'{"points": [], "images": [{"image_url": "https://a.example/0.png"}, {"image_url": 1}, 2]}'
    assert [camera_image(content, camera) for camera in range(-1, 4)] == [
        None,
        "https://a.example/0.png",
        None,
        None,
        None,
    ]
    assert camera_image(b"[]", 0) is None
