"""Bounding boxes and their overlap."""

from typing import Any

import numpy as np
import pytest

from scale.geometry import Bounds, bounds, iou_matrix


@pytest.mark.parametrize(
    ("geometry", "box"),
    [
        ({"left": 1, "top": 2, "width": 3, "height": 4}, (1, 2, 4, 6)),
        ({"x": 1, "y": 2, "width": 3, "height": 4}, (1, 2, 4, 6)),
        ({"x": 1, "y": 2}, (1, 2, 1, 2)),
        ({"vertices": [{"x": 5, "y": 0}, {"x": 1, "y": 9}, "odd"]}, (1, 0, 5, 9)),
        ({"left": 0, "top": 0, "width": 9, "height": 9, "vertices": [{"x": 3, "y": 3}]}, (3, 3, 3, 3)),
        ({"edges": [{"x1": 1, "y1": 2, "x2": 3, "y2": 4}]}, (1, 2, 3, 4)),
        ({"left": True, "top": 1}, None),
        ({"left": float("nan"), "top": 1}, None),
        ({"start": 1, "end": 2}, None),
    ],
)
def test_the_bounds_of_each_shape(geometry: dict[str, Any], box: tuple[float, ...] | None) -> None:
    assert bounds(geometry, ("vertices", "edges")) == (box and Bounds(*box))


def test_overlap_is_the_share_of_the_union() -> None:
    one = np.array([(0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 0.0, 5.0)])
    other = np.array([(0.0, 0.0, 10.0, 5.0), (20.0, 0.0, 30.0, 10.0)])
    assert iou_matrix(one, other).tolist() == [[0.5, 0.0], [0.0, 0.0]]


def test_a_line_along_an_axis_overlaps_itself_in_whole_pixels() -> None:
    line = np.array([(0.0, 3.0, 9.0, 3.0)])
    assert iou_matrix(line, line).tolist() == [[0.0]]
    assert iou_matrix(line, line, pixels=True).tolist() == [[1.0]]
