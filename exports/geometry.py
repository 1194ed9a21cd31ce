"""Shapes as points: what formats share. Pixels, origin top left, y down; angles in radians, clockwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scale.annotations import Annotation

Point = tuple[float, float]
ELLIPSE_POINTS = 64
"""Vertices of the polygon that approximates an ellipse: at a radius of 1,000 pixels it is at most 1.2 pixels off."""


DECIMALS = 6
"""Of computed coordinates: a millionth of a pixel."""


def geometry_name(annotation: Annotation) -> str:
    """Return the annotation's column in the table of formats: its type, or "rotated box"."""
    return "rotated box" if annotation.type == "box" and is_rotated(annotation.geometry) else annotation.type


def is_rotated(geometry: Mapping[str, Any]) -> bool:
    """Return whether a box is turned by a visible angle."""
    rotation = geometry.get("rotation")
    return bool(rotation) and isinstance(rotation, int | float)


def corners(geometry: Mapping[str, Any]) -> list[Point]:
    """Return the four corners of a box in drawing order: Scale's own where the box has them, else turned around its centre."""
    given = geometry.get("vertices")
    if is_rotated(geometry) and isinstance(given, list) and len(given) == 4:
        return [(vertex["x"], vertex["y"]) for vertex in given]
    left, top, width, height = (geometry[key] for key in ("left", "top", "width", "height"))
    straight = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    if not is_rotated(geometry):
        return straight
    centre_x, centre_y = left + width / 2, top + height / 2
    cosine, sine = math.cos(geometry["rotation"]), math.sin(geometry["rotation"])
    return [
        (
            rounded(centre_x + (x - centre_x) * cosine - (y - centre_y) * sine),
            rounded(centre_y + (x - centre_x) * sine + (y - centre_y) * cosine),
        )
        for x, y in straight
    ]


def rounded(number: float) -> float:
    """Round the result of a sine, cosine or root, whose last bits differ between machines."""
    return round(number, DECIMALS) + 0.0  # + 0.0: no -0.0


def vertices(geometry: Mapping[str, Any]) -> list[Point]:
    """Return the vertices of a polygon, line, cuboid or ellipse."""
    return [(vertex["x"], vertex["y"]) for vertex in geometry["vertices"]]


def ellipse(geometry: Mapping[str, Any], points: int = ELLIPSE_POINTS) -> list[Point]:
    """Return a polygon along an ellipse that is given by its leftmost, topmost, rightmost and lowest point.

    Through each of them the tangent is parallel to an axis of the image; that fixes the ellipse, also a turned one.
    """
    centre_x, centre_y, radius_x, radius_y, shear = ellipse_form(geometry)
    if radius_x == 0 or radius_y == 0:
        left, right = (centre_x - radius_x, centre_y - radius_y), (centre_x + radius_x, centre_y + radius_y)
        return [left, right]
    # x = rx cos t and y = ry (s cos t + sqrt(1 - s²) sin t): extents rx and ry whatever the shear s.
    other = math.sqrt(1 - shear * shear)
    turns = (2 * math.pi * step / points for step in range(points))
    return [
        (
            rounded(centre_x + radius_x * math.cos(turn)),
            rounded(centre_y + radius_y * (shear * math.cos(turn) + other * math.sin(turn))),
        )
        for turn in turns
    ]


def ellipse_form(geometry: Mapping[str, Any]) -> tuple[float, float, float, float, float]:
    """Return (centre x, centre y, half of the width, half of the height, shear). shear is 0 where the axes are those of the image."""
    given = vertices(geometry)
    left, top, right, bottom = bounds(given)
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    radius_x, radius_y = (right - left) / 2, (bottom - top) / 2
    rightmost = max(given)
    shear = (rightmost[1] - centre_y) / radius_y if radius_y else 0.0
    if abs(shear) < 1e-6:
        shear = 0.0
    return centre_x, centre_y, radius_x, radius_y, max(-1.0, min(1.0, shear))


def ellipse_axes(geometry: Mapping[str, Any]) -> tuple[float, float, float, float, float]:
    """Return centre x, centre y, the two half axes, and the angle of the first one."""
    centre_x, centre_y, radius_x, radius_y, shear = ellipse_form(geometry)
    if shear == 0:
        return centre_x, centre_y, radius_x, radius_y, 0.0
    # The eigenvalues of the matrix of second moments are the squares of the half axes.
    xx, xy, yy = radius_x * radius_x, radius_x * radius_y * shear, radius_y * radius_y
    middle, spread = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    first, second = rounded(math.sqrt(middle + spread)), rounded(math.sqrt(max(middle - spread, 0.0)))
    return centre_x, centre_y, first, second, math.atan2(2 * xy, xx - yy) / 2


def bounds(points: Sequence[Point]) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) in pixels."""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return min(xs), min(ys), max(xs), max(ys)


def area(points: Sequence[Point]) -> float:
    """Return the area of a polygon in square pixels, in either drawing direction."""
    total = 0.0
    before_x, before_y = points[-1]
    for x, y in points:
        total += before_x * y - x * before_y
        before_x, before_y = x, y
    return abs(total) / 2


def clip_polygon(points: Sequence[Point], width: float, height: float) -> list[Point]:
    """Return what of a polygon lies in an image of this size (Sutherland and Hodgman); [] where nothing does."""
    kept = list(points)
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept = _clip_side(kept, axis, limit, sign)
        if not kept:
            return []
    return kept


def _clip_side(points: list[Point], axis: int, limit: float, sign: int) -> list[Point]:
    kept: list[Point] = []
    for here, before in zip(points, [points[-1], *points[:-1]], strict=True):
        is_in, was_in = (here[axis] - limit) * sign >= 0, (before[axis] - limit) * sign >= 0
        if is_in != was_in:
            share = (limit - before[axis]) / (here[axis] - before[axis])
            cut = [before[0] + (here[0] - before[0]) * share, before[1] + (here[1] - before[1]) * share]
            cut[axis] = limit
            kept.append((cut[0], cut[1]))
        if is_in:
            kept.append(here)
    return kept
