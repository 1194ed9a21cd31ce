"""Bounding boxes and their overlap. Pixels, origin top left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from scale.fields import is_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BOX_KEYS = ("left", "top", "width", "height")


class Bounds(NamedTuple):
    """An axis-aligned box. Right and bottom are those of its last points, so a point has no width."""

    left: float
    top: float
    right: float
    bottom: float


def bounds(geometry: Mapping[str, Any], parts: Sequence[str] = ("vertices",)) -> Bounds | None:
    """Return the bounding box of an annotation of any shape; None if it has no place in an image.

    parts: the keys of the lists whose points count. Where there are none, the box or the point itself counts.
    """
    points = list(_points(geometry, parts)) or list(_corners(geometry))
    if not points:
        return None
    across, down = zip(*points, strict=True)
    return Bounds(min(across), min(down), max(across), max(down))


def _points(geometry: Mapping[str, Any], parts: Sequence[str]) -> Iterator[tuple[float, float]]:
    """Yield the points of a drawn shape, also of a rotated box, whose left and top are those of the unrotated box."""
    for part in parts:
        points = geometry.get(part)
        for point in points if isinstance(points, list) else ():
            if not isinstance(point, dict):
                continue
            for x, y in (("x", "y"), ("x1", "y1"), ("x2", "y2")):
                if is_number(point.get(x)) and is_number(point.get(y)):
                    yield point[x], point[y]


def _corners(geometry: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield two corners of a box, or a point."""
    left, top = geometry.get("left", geometry.get("x")), geometry.get("top", geometry.get("y"))
    if not is_number(left) or not is_number(top):
        return
    yield left, top
    width, height = geometry.get("width"), geometry.get("height")
    if is_number(width) and is_number(height):
        yield left + width, top + height


def iou_matrix(
    one: Sequence[Sequence[float]] | NDArray[np.float64],
    other: Sequence[Sequence[float]] | NDArray[np.float64],
    *,
    pixels: bool = False,
) -> NDArray[np.float64]:
    """Return the intersection over union of each of n boxes with each of m other ones: shape (n, m).

    A box is left, top, right, bottom. pixels: count the pixels with both edges included, so that a line along an axis has
    an area too. Two boxes without an area do not overlap.
    """
    import numpy as np  # a tenth of what a command needs to start, and few compare boxes

    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    edge = 1 if pixels else 0
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.clip(high - low + edge, 0, None), axis=2)
    areas = [np.prod(np.clip(sides[:, 2:] - sides[:, :2] + edge, 0, None), axis=1) for sides in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    overlaps: NDArray[np.float64] = np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
    return overlaps
