"""Masks as PNG files: one for each label, and an index image for each task."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from exports.export import Export, dumps
from exports.format import Format
from exports.names import Names
from exports.pixels import decode, palette
from pipeline.datasets.records import Task
from scale.annotations import Annotation

NO_PIXELS = "the mask has no pixels, or its image could not be read"
TOO_MANY = "an index image holds 255 masks"
OVERLAP = "pixels that an earlier mask has are not in the index image a second time"
INDEX_NAME = "index"
Pixels = NDArray[np.uint8]


def write(export: Export) -> None:
    """Write <task_id>/<label>.png with all instances of a label, <task_id>/index.png and <task_id>/index.json."""
    folders = Names()
    for task in export.tasks():
        masks = [(annotation, decode(annotation.geometry)) for annotation in task.annotations]
        with_pixels = [
            (annotation, pixels) for annotation, pixels in masks if pixels is not None and pixels.any()
        ]
        without = [annotation for annotation, pixels in masks if pixels is None or not pixels.any()]
        export.report.leave_out(NO_PIXELS, task, without)
        if with_pixels:
            _write_task(export, task, folders.name(task.task_id), with_pixels)


def _write_task(export: Export, task: Task, folder: str, masks: list[tuple[Annotation, Pixels]]) -> None:
    height, width = masks[0][1].shape
    same = [(annotation, pixels) for annotation, pixels in masks if pixels.shape == (height, width)]
    names = Names()
    names.name(INDEX_NAME)
    by_label: dict[str, Pixels] = {}
    for annotation, pixels in same:
        label = annotation.label or "unlabeled"
        whole = by_label.setdefault(label, np.zeros((height, width), np.uint8))
        whole |= pixels
    for label, whole in by_label.items():
        _save(export, f"{folder}/{names.name(label, 'label')}.png", Pillow.fromarray(whole * np.uint8(255)))
    _write_index(export, task, folder, same)
    export.report.leave_out("its size is not that of the task's other masks", task, _others(masks, same))
    export.report.wrote(task, *(annotation for annotation, _ in same))


def _others(
    masks: list[tuple[Annotation, Pixels]], same: list[tuple[Annotation, Pixels]]
) -> Iterable[Annotation]:
    kept = {id(annotation) for annotation, _ in same}
    return [annotation for annotation, _ in masks if id(annotation) not in kept]


def _write_index(export: Export, task: Task, folder: str, masks: list[tuple[Annotation, Pixels]]) -> None:
    """Write the index image: value n for the n-th of Scale's indexes, 0 where nothing is labeled."""
    shape = masks[0][1].shape
    image = np.zeros(shape, np.uint8)
    entries = []
    ordered = sorted(masks, key=lambda pair: (_index(pair[0]), pair[0].position))
    for value, (annotation, pixels) in enumerate(ordered, start=1):
        if value > 255:
            export.report.change(TOO_MANY, task, annotation.type)
            continue
        free = (pixels == 1) & (image == 0)
        if free.sum() < pixels.sum():
            export.report.change(OVERLAP, task, annotation.type)
        image[free] = value
        entries.append({"value": value, "index": annotation.geometry.get("index"), "label": annotation.label})
    made = Pillow.fromarray(image, mode="P")
    made.putpalette(palette())
    _save(export, f"{folder}/{INDEX_NAME}.png", made)
    with export.open(f"{folder}/{INDEX_NAME}.json") as file:
        file.write(dumps({"unlabeled": 0, "values": entries}) + b"\n")


def _index(annotation: Annotation) -> int:
    index = annotation.geometry.get("index")
    return index if type(index) is int else 2**32


def _save(export: Export, name: str, image: Pillow.Image) -> None:
    with export.open(name) as file:
        image.save(file, "PNG", optimize=False)


MASKS = Format(
    "masks",
    "<task_id>/<label>.png, <task_id>/index.png with its palette: masks as images",
    {"mask": "255 inside, 0 outside; the index image has one value for each of Scale's indexes"},
    write,
)
