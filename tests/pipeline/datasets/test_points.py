"""Points of lidar frames."""

from array import array

import pytest

from pipeline.datasets.points import points_of


@pytest.mark.parametrize(
    "content", [b'{"points": [{"x": 1, "y": 2.5, "z": -3, "i": 9}, {"x": "1"}, 5]}', b"[[1, 2.5, -3]]"]
)
def test_points_are_three_floats_each(content: bytes) -> None:
    assert array("f", points_of(content)).tolist() == [1, 2.5, -3]


@pytest.mark.parametrize("content", [b"", b"PCD", b'{"points": 1}', b"1"])
def test_a_file_of_another_form_has_no_points(content: bytes) -> None:
    assert points_of(content) == b""
