"""The points and the camera images of a lidar frame, as Scale takes them: `{"points": [{"x", "y", "z", …}], "images": […], …}`."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import orjson

from pipeline.db.memory_budget import charge_parsing

MAX_POINTS = 500_000
SIGN_BYTES = 25
"""Memory for each brace, bracket, comma and colon of a file that is mostly numbers: a point with four takes some 260 bytes."""


def points_of(content: bytes, colors: Sequence[int] = ()) -> bytes:
    """Return x, y, z and color of each point as 32-bit floats, at most MAX_POINTS; no bytes if the file is of another form.

    A point that has none of `colors` gets -1.
    """
    frame = _read(content)
    points = frame.get("points") if isinstance(frame, dict) else frame
    if not isinstance(points, list):
        return b""
    every = max(1, -(-len(points) // MAX_POINTS))
    values = array("f")
    for number in range(0, len(points), every):
        if (place := _place(points[number])) is not None:
            values.extend((*place, colors[number] if number < len(colors) else -1))
    return values.tobytes()


def segments_of(content: bytes, frame: int) -> list[int]:
    """Return the index of the object that each point of a frame belongs to, from the file of a point segmentation.

    Source: docs, "LiDAR Segmentation", response.
    """
    read = _read(content)
    frames = read.get("point_objects", read.get("point_labels")) if isinstance(read, dict) else None
    found = frames[frame] if isinstance(frames, list) and 0 <= frame < len(frames) else None
    return found if isinstance(found, list) else []


def camera_image(content: bytes, camera: int) -> str | None:
    """Return the address of a camera's image. Source: docs, "Sensor Fusion", images."""
    frame = _read(content)
    images = frame.get("images") if isinstance(frame, dict) else None
    image = images[camera] if isinstance(images, list) and 0 <= camera < len(images) else None
    address = image.get("image_url") if isinstance(image, dict) else None
    return address if isinstance(address, str) else None


def _read(content: bytes) -> Any:
    """Return the value of a JSON file; None if it is none. Raises ReadTooLarge and ReadersBusy within a memory budget."""
    charge_parsing(content, SIGN_BYTES)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _place(point: Any) -> tuple[float, float, float] | None:
    """Return x, y and z of a point, given as an object or as a list."""
    found = [point.get(axis) for axis in "xyz"] if isinstance(point, dict) else point
    if not isinstance(found, list) or len(found) < 3:
        return None
    x, y, z = found[:3]
    if not all(type(value) in (int, float) and abs(value) < 1e9 for value in (x, y, z)):
        return None
    return x, y, z
