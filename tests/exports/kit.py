"""What tests of several formats share: the shapes and pixels that a reader found, and tasks of the labeled dataset."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.datasets import versions
from pipeline.datasets.versions import Request
from tests.exports.labeled import Labeled

SEGMENTATION = "65a000000000000000000010"
VIDEO = "65a000000000000000000020"
LIDAR = "65a000000000000000000030"


def shapes_of(items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    (item,) = (one for one in items if one["id"].rpartition("/")[2] == name)
    shapes: list[dict[str, Any]] = item["shapes"]
    return shapes


def one(shapes: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (shape,) = (one for one in shapes if one["kind"] == kind)
    return shape


def whole_version(labeled: Labeled, name: str) -> versions.Version:
    return versions.create(labeled.service, name, Request(), "ana")


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.array(image)
