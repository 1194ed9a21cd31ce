"""Rectangles that are cut around annotations, and coordinates in the image and in the cut. Pixels, origin top left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from scale.fields import is_number
from scale.geometry import BOX_KEYS, bounds
from scale.layers import LAYER_KEYS

X = ("left", "x", "x1", "x2")
Y = ("top", "y", "y1", "y2")
POINTS = ("vertices", "edges", "points_2d")
"""Keys of Scale's geometries whose elements hold image coordinates. points_3d are not in the image."""
CONTAINERS = (*LAYER_KEYS.values(), "annotations", "pieces")
"""Keys whose elements are annotations."""


@dataclass(frozen=True, slots=True)
class Padding:
    """The margin of a crop: pixels, or (`is_fraction`) a fraction of the annotation's own width and height."""

    amount: float
    is_fraction: bool


@dataclass(frozen=True, slots=True)
class Crop:
    """The section `crop` of a step. min_size: pixels."""

    padding: Padding = Padding(0, False)
    min_size: int = 1


class Rect(NamedTuple):
    """Part of an image in whole pixels. left and top are not negative; the other sides may lie outside the image."""

    left: int
    top: int
    width: int
    height: int


def crop_rect(annotation: Mapping[str, Any], crop: Crop) -> Rect | None:
    """Return the rectangle to cut around an annotation and all its pieces; None if it has no place in the image."""
    places = [place for piece in pieces_of([annotation]) if (place := bounds(piece)) is not None]
    if not places:
        return None
    left, right = _grown(min(place.left for place in places), max(place.right for place in places), crop)
    top, bottom = _grown(min(place.top for place in places), max(place.bottom for place in places), crop)
    return Rect(left, top, right - left, bottom - top) if right > 0 and bottom > 0 else None


def _grown(low: float, high: float, crop: Crop) -> tuple[int, int]:
    """Return one side with its padding, at least min_size long and not below 0."""
    padding = (high - low) * crop.padding.amount if crop.padding.is_fraction else crop.padding.amount
    start, end = math.floor(low - padding), math.ceil(high + padding)
    if (missing := crop.min_size - (end - start)) > 0:
        start -= missing // 2
        end = start + crop.min_size
    if start < 0:
        return 0, max(end, crop.min_size) if end > 0 else end
    return start, end


def merge_pieces(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one annotation for an object that was drawn in several pieces, which it has under `pieces`.

    Its other keys are those of the first piece. left, top, width and height, where all pieces have them, cover all pieces.
    """
    if len(pieces) == 1:
        return pieces[0]
    merged = {**pieces[0], "pieces": pieces}
    if all(is_number(piece.get(key)) for piece in pieces for key in BOX_KEYS):
        left, top = min(piece["left"] for piece in pieces), min(piece["top"] for piece in pieces)
        right = max(piece["left"] + piece["width"] for piece in pieces)
        bottom = max(piece["top"] + piece["height"] for piece in pieces)
        merged |= {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return merged


def pieces_of(annotations: list[Any]) -> list[Any]:
    """Return a list of annotations in which each merged annotation is replaced by its pieces."""
    return [piece for annotation in annotations for piece in _pieces(annotation)]


def _pieces(annotation: Any) -> list[Any]:
    pieces = annotation.get("pieces") if isinstance(annotation, dict) else None
    return (
        [piece for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else [annotation]
    )


def translate(value: Any, right: float, down: float) -> Any:
    """Return annotations (one, a list, layers, a hypothesis) moved by that many pixels."""
    if isinstance(value, list):
        return [translate(element, right, down) for element in value]
    if not isinstance(value, dict):
        return value
    return {key: _translated(key, inner, right, down) for key, inner in value.items()}


def _translated(key: str, inner: Any, right: float, down: float) -> Any:
    if is_number(inner):
        return inner + (right if key in X else down if key in Y else 0)
    return translate(inner, right, down) if key in POINTS or key in CONTAINERS else inner


def to_crop(value: Any, crop: Rect) -> Any:
    """Return annotations in coordinates of the crop; `value` is in those of the image."""
    return translate(value, -crop.left, -crop.top)


def from_crop(value: Any, crop: Rect) -> Any:
    """Return annotations in coordinates of the image; `value` is in those of the crop."""
    return translate(value, crop.left, crop.top)
