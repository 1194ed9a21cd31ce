"""Shapes without a browser; test_drawing.py sees where they lie."""

import re

import pytest

from app.console.shapes import key_of, shape

FACE = {
    "face-topleft": (30, 40),
    "face-topright": (110, 40),
    "face-bottomright": (110, 90),
    "face-bottomleft": (30, 90),
}


@pytest.mark.parametrize(("near", "x"), [("right", 150), ("left", 10)])
def test_a_cuboid_without_edges_is_closed_on_the_side_that_is_seen(near: str, x: int) -> None:
    named = {**FACE, "side-topcorner": (x, 52), "side-bottomcorner": (x, 78)}
    vertices = [{"description": name, "x": x, "y": y} for name, (x, y) in named.items()]
    drawn = shape({"position": 0, "type": "cuboid", "label": "van", "geometry": {"vertices": vertices}})
    edges = set(re.findall(r"M[^M\"]+", str(drawn)))
    (left, top), (_, bottom) = FACE[f"face-top{near}"], FACE[f"face-bottom{near}"]
    assert {f"M{left} {top}L{x} 52", f"M{left} {bottom}L{x} 78", f"M{x} 52L{x} 78"} < edges
    assert len(edges) == 7


def test_rows_of_different_files_have_different_keys() -> None:
    keys = [key_of({"position": 3, "file": file}) for file in (0, 1, 2)]
    assert keys == ["3", "3", "2-3"]
    assert key_of({"position": 3}) == "3"
