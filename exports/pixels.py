"""Masks as arrays of pixels, and the colors of index images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from scale.masks import MAX_PIXELS


def decode(geometry: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Return a mask as rows of pixels, 1 inside and 0 outside; None where its image was never read, or has more than MAX_PIXELS."""
    if not pixel_count(geometry):
        return None
    rle = geometry["rle"]
    pixels: NDArray[np.uint8] = coco_mask.decode(
        {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
    )
    return pixels


def pixel_count(geometry: Mapping[str, Any]) -> int:
    """Return the pixels of the image that a mask belongs to; 0 without an encoded mask of up to MAX_PIXELS."""
    match geometry.get("rle"):
        case {"size": [int(height), int(width)], "counts": str(counts)} if counts.isascii():
            count = height * width if min(height, width) > 0 else 0
            return count if count <= MAX_PIXELS else 0
    return 0


def color(index: int) -> tuple[int, int, int]:
    """Return red, green and blue of an index, 0 to 255 each. Index 0 is black. Source: VOC devkit, VOClabelcolormap."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue


def palette() -> list[int]:
    """Return the colors of 256 indexes in a row, as Pillow's putpalette takes them."""
    return [part for index in range(256) for part in color(index)]
