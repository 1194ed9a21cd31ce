"""COCO panoptic segmentation. Source: cocodataset.org, "Format: Panoptic Segmentation"."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from exports.export import Export, dumps
from exports.format import Format
from exports.json_array import JsonArray
from exports.names import Names
from exports.pixels import color, decode
from exports.records import Image
from scale.annotations import Annotation

NO_PIXELS = "the mask has no pixels, or its image could not be read"
OTHER_SIZE = "its size is not that of the image"
COVERED = "every pixel of it belongs to an earlier mask"
OVERLAP = "pixels that an earlier mask has are left to it"
MAX_ID = 2**24 - 1


def write(export: Export) -> None:
    """Write panoptic.json, panoptic/<image>.png and, with copies, images/."""
    names = Names()
    with (
        JsonArray(export.work / "panoptic-images") as images,
        JsonArray(export.work / "panoptic-annotations") as segments,
    ):
        for image in export.images():
            _write_image(export, image, names, images, segments)
        with export.open("panoptic.json") as file:
            file.write(b'{"categories":' + dumps(_categories(export)) + b',"images":')
            images.copy_to(file)
            file.write(b',"annotations":')
            segments.copy_to(file)
            file.write(b"}\n")


def _categories(export: Export) -> list[dict[str, Any]]:
    return [
        {"id": position, "name": label, "supercategory": label, "isthing": 1, "color": list(color(position))}
        for position, label in enumerate(export.classes.names, start=1)
    ]


def _write_image(export: Export, image: Image, names: Names, images: JsonArray, segments: JsonArray) -> None:
    copied = export.copy(image, f"images/{image.file_name}")
    record = {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}
    images.append(record if copied else {**record, "coco_url": image.address})
    assert image.width is not None
    assert image.height is not None
    ids = np.zeros((image.height, image.width), np.uint32)
    infos: list[dict[str, Any]] = []
    for task, annotation in image.annotations:
        pixels = decode(annotation.geometry)
        if pixels is None or not pixels.any():
            export.report.leave_out(NO_PIXELS, task, [annotation])
        elif pixels.shape != ids.shape:
            export.report.leave_out(OTHER_SIZE, task, [annotation])
        elif not (free := (pixels == 1) & (ids == 0)).any():
            export.report.leave_out(COVERED, task, [annotation])
        else:
            if free.sum() < pixels.sum():
                export.report.change(OVERLAP, task, annotation.type)
            segment_id = _segment_id(annotation, {info["id"] for info in infos})
            ids[free] = segment_id
            infos.append(_info(export, annotation, segment_id, free))
            export.report.wrote(task, annotation)
    file_name = f"{names.name(image.stem)}.png"
    with export.open(f"panoptic/{file_name}") as file:
        Pillow.fromarray(_rgb(ids)).save(file, "PNG", optimize=False)
    segments.append({"image_id": image.id, "file_name": file_name, "segments_info": infos})
    export.report.wrote_image(image)


def _segment_id(annotation: Annotation, taken: set[int]) -> int:
    """Return Scale's index of the mask, or the first free number where another task's mask of this image has it."""
    index = annotation.geometry.get("index")
    if type(index) is int and 0 < index <= MAX_ID and index not in taken:
        return index
    return next(number for number in range(1, MAX_ID) if number not in taken)


def _info(export: Export, annotation: Annotation, segment_id: int, free: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "id": segment_id,
        "category_id": export.classes.ids[annotation.label or ""] + 1,
        "area": int(free.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "iscrowd": 0,
    }


def _rgb(ids: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return ids as pixels: id = R + 256 G + 65536 B."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


COCO_PANOPTIC = Format(
    "coco-panoptic",
    "panoptic.json, panoptic/*.png: COCO panoptic segmentation",
    {"mask": "one segment for each of Scale's indexes"},
    write,
    needs_classes=True,
    needs_images=True,
    needs_sizes=True,
)
