"""The points of a lidar frame, as Scale takes them: `{"points": [{"x", "y", "z", …}], …}`."""

from __future__ import annotations

from array import array
from typing import Any

import orjson

MAX_POINTS = 500_000


def points_of(content: bytes) -> bytes:
    """Return x, y and z of each point as 32-bit floats, at most MAX_POINTS; no bytes if the file is of another form."""
    try:
        frame = orjson.loads(content)
    except orjson.JSONDecodeError:
        return b""
    points = frame.get("points") if isinstance(frame, dict) else frame
    if not isinstance(points, list):
        return b""
    every = max(1, -(-len(points) // MAX_POINTS))
    values = array("f")
    for point in points[::every]:
        if (place := _place(point)) is not None:
            values.extend(place)
    return values.tobytes()


def _place(point: Any) -> tuple[float, float, float] | None:
    """Return x, y and z of a point, given as an object or as a list."""
    found = [point.get(axis) for axis in "xyz"] if isinstance(point, dict) else point
    if not isinstance(found, list) or len(found) < 3:
        return None
    x, y, z = found[:3]
    if not all(type(value) in (int, float) and abs(value) < 1e9 for value in (x, y, z)):
        return None
    return x, y, z
