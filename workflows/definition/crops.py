"""Where an image is cut around an annotation, and how coordinates go from the image to the cut and back. Pixels, origin top left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from scale.fields import is_number
from scale.geometry import bounds
from scale.layers import LAYER_KEYS

X = ("left", "x", "x1", "x2")
Y = ("top", "y", "y1", "y2")
# Keys of Scale's geometries whose elements hold coordinates of their own; points_3d are not in the image.
POINTS = ("vertices", "edges", "points_2d")


@dataclass(frozen=True, slots=True)
class Padding:
    amount: float
    share: bool  # of the annotation's own width and height; else pixels


@dataclass(frozen=True, slots=True)
class Crop:
    padding: Padding = Padding(0, False)
    min_size: int = 1  # pixels


class Rect(NamedTuple):
    """Part of an image: whole pixels, never left of or above it; the right and lower ends may lie outside."""

    left: int
    top: int
    width: int
    height: int


def crop_rect(annotation: Mapping[str, Any], crop: Crop) -> Rect | None:
    """The part of the image that `crop` means; None for an annotation that has no place in it."""
    place = bounds(annotation)
    if place is None:
        return None
    left, right = _grown(place.left, place.right, crop)
    top, bottom = _grown(place.top, place.bottom, crop)
    return Rect(left, top, right - left, bottom - top) if right > 0 and bottom > 0 else None


def _grown(low: float, high: float, crop: Crop) -> tuple[int, int]:
    """One side with its padding, at least min_size long and not below 0."""
    padding = (high - low) * crop.padding.amount if crop.padding.share else crop.padding.amount
    start, end = math.floor(low - padding), math.ceil(high + padding)
    if (missing := crop.min_size - (end - start)) > 0:
        start -= missing // 2
        end = start + crop.min_size
    if start < 0:
        return 0, max(end, crop.min_size) if end > 0 else end
    return start, end


def translate(value: Any, right: float, down: float) -> Any:
    """Annotations, in whatever they come (one, a list, layers, a hypothesis), moved by that many pixels."""
    if isinstance(value, list):
        return [translate(element, right, down) for element in value]
    if not isinstance(value, dict):
        return value
    return {key: _moved(key, inner, right, down) for key, inner in value.items()}


def _moved(key: str, inner: Any, right: float, down: float) -> Any:
    if is_number(inner):
        return inner + (right if key in X else down if key in Y else 0)
    if key in POINTS or key in (*LAYER_KEYS.values(), "annotations"):
        return translate(inner, right, down)
    return inner


def to_crop(value: Any, crop: Rect) -> Any:
    """From coordinates of the image into those of the crop."""
    return translate(value, -crop.left, -crop.top)


def from_crop(value: Any, crop: Rect) -> Any:
    """From coordinates of the crop back into those of the image."""
    return translate(value, crop.left, crop.top)
