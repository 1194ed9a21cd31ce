"""WebDataset: tar files of samples. A sample is one image: its bytes or its address, and a JSON object of its annotations."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from exports.export import Export, dumps
from exports.format import Format
from exports.formats.huggingface import bounding_box
from exports.records import Image
from pipeline.datasets.records import Task
from scale.annotations import Annotation

SHARD_BYTES = 256 * 1024 * 1024
SHARD_SAMPLES = 10_000
EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
}


def write(export: Export) -> None:
    """Write tar shards of each split: the image and its annotations as JSON under one key."""
    shards = {split: _Shards(export, split) for split in export.splits}
    try:
        for image in export.images():
            _write_image(export, shards[image.split], image)
    finally:
        for shard in shards.values():
            shard.close()


def _write_image(export: Export, shard: _Shards, image: Image) -> None:
    # WebDataset splits names at the first dot, and `.` in a key would cut it: the key is a number, the name is inside.
    key = f"{image.id:09d}"
    path = export.copied(image)
    content = {
        "file_name": image.file_name,
        "address": image.address,
        "width": image.width,
        "height": image.height,
        "split": image.split,
        "tasks": [task.task_id for task in image.tasks],
        "annotations": [_annotation(export, task, annotation) for task, annotation in image.annotations],
    }
    members: list[tuple[str, bytes | Path]] = []
    if path is not None:
        members.append((f"{key}.{_extension(image)}", path))
    members.append((f"{key}.json", dumps(content)))
    shard.add(members)
    for task, annotation in image.annotations:
        export.report.wrote(task, annotation)
    export.report.wrote_image(image)


def _extension(image: Image) -> str:
    known = EXTENSIONS.get(image.media_type or "")
    return known or image.file_name.rpartition(".")[2].lower() if "." in image.file_name else known or "jpg"


def _annotation(export: Export, task: Task, annotation: Annotation) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "uuid": annotation.uuid,
        "type": annotation.type,
        "label": annotation.label,
        "category": export.classes.ids.get(annotation.label) if annotation.label is not None else None,
        "bbox": bounding_box(annotation),
        "attributes": annotation.attributes,
        "geometry": annotation.geometry,
    }


class _Shards:
    """The tar files of one split, each closed once it is large enough."""

    def __init__(self, export: Export, split: str) -> None:
        self._export = export
        self._split = split
        self._count = self._samples = self._bytes = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, members: list[tuple[str, bytes | Path]]) -> None:
        if self._tar is None:
            name = f"{self._split}-{self._count:06d}.tar"
            self._tar = tarfile.open(self._export.path(name), "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
            self._count += 1
        for name, content in members:
            self._add(self._tar, name, content)
        self._samples += 1
        if self._samples >= SHARD_SAMPLES or self._bytes >= SHARD_BYTES:
            self._end()

    def _add(self, tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
        info = tarfile.TarInfo(name)  # no time, no owner: the same bytes on every machine
        info.mode = 0o644
        if isinstance(content, bytes):
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        else:
            info.size = content.stat().st_size
            with content.open("rb") as file:
                tar.addfile(info, file)
        self._bytes += info.size

    def _end(self) -> None:
        if self._tar is not None:
            self._tar.close()
        self._tar, self._samples, self._bytes = None, 0, 0

    def close(self) -> None:
        if self._count == 0:
            self.add([])
        self._end()


WEBDATASET = Format(
    "webdataset",
    "<split>-NNNNNN.tar: one sample an image, with its annotations as JSON",
    {
        "box": "as JSON", "rotated box": "as JSON", "polygon": "as JSON", "line": "as JSON", "point": "as JSON",
        "ellipse": "as JSON", "cuboid": "as JSON", "mask": "as JSON, with its RLE",
    },
    write,
    needs_images=True,
    needs_copies=True,
)  # fmt: skip
