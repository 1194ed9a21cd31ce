"""Masks as arrays of pixels, and the colors of index images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


def decode(geometry: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """Return a mask as rows of pixels, 1 inside and 0 outside; None where its image was never read."""
    rle = geometry.get("rle")
    if not isinstance(rle, Mapping):
        return None
    encoded = {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
    pixels: NDArray[np.uint8] = coco_mask.decode(encoded)
    return pixels


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
