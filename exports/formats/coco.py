"""COCO instances and keypoints: annotations.json, and annotations_<split>.json where there are splits.

Categories count from 1 in the order of the classes. Polygons of one uuid are one annotation; masks are compressed RLE.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from pycocotools import mask as coco_mask

from exports import geometry as shapes
from exports.export import Export, dumps
from exports.format import Format
from exports.records import Image
from pipeline.datasets.records import Task
from scale.annotations import Annotation

TOO_FEW_VERTICES = "a polygon needs at least 3 vertices"
NO_PIXELS = "the mask has no pixels"
NO_RLE = "the pixels of the mask were not read"
ROTATED = "a rotated box became a polygon"
ELLIPSE = f"an ellipse became a polygon of {shapes.ELLIPSE_POINTS} points"


def write(export: Export) -> None:
    """Write annotations.json, and annotations_SPLIT.json for each split. Category ids count from 1."""
    ids = export.classes.ids
    files = [_File(export, "annotations.json", None)]
    if export.has_splits:
        files += [_File(export, f"annotations_{split}.json", split) for split in export.splits]
    with ExitStack() as closing:
        for file in files:
            closing.enter_context(file)
        next_id = 1
        for image in export.images():
            image_record = _image(export, image)
            into = [file for file in files if file.split in (None, image.split)]
            for file in into:
                file.add_image(image_record)
            for shape in _shapes(export, image):
                record = _record(export, shape)
                record["id"], record["image_id"] = next_id, image.id
                record["category_id"] = ids[shape.label] + 1
                next_id += 1
                line = dumps(record)
                for file in into:
                    file.add_annotation(line)
                export.report.wrote(shape.task, *shape.annotations)
            export.report.wrote_image(image)
    for file in files:
        file.finish()


class _File:
    """One COCO file. Annotations wait in a side file, since all images come before them."""

    def __init__(self, export: Export, name: str, split: str | None) -> None:
        self.split = split
        self._path = export.path(name)
        self._side_path = export.work / f"{name}.annotations"
        self._categories = [
            {"id": position, "name": label, "supercategory": ""}
            for position, label in enumerate(export.classes.names, 1)
        ]
        self._info = {"description": export.version.full_name or "", "version": export.version.digest}

    def __enter__(self) -> _File:
        self._main: BinaryIO = self._path.open("wb")
        self._side: BinaryIO = self._side_path.open("wb")
        self._main.write(b'{"info":' + dumps(self._info) + b',"licenses":[],"images":[')
        self._first_image = self._first_annotation = True
        return self

    def add_image(self, record: bytes) -> None:
        self._main.write(record if self._first_image else b",\n" + record)
        self._first_image = False

    def add_annotation(self, record: bytes) -> None:
        self._side.write(record if self._first_annotation else b",\n" + record)
        self._first_annotation = False

    def __exit__(self, *_: object) -> None:
        self._side.close()
        self._main.close()

    def finish(self) -> None:
        with self._path.open("ab") as main, self._side_path.open("rb") as side:
            main.write(b'],"annotations":[')
            shutil.copyfileobj(side, main, 1024 * 1024)
            main.write(b'],"categories":' + orjson.dumps(self._categories) + b"}\n")
        Path(self._side_path).unlink()


def _image(export: Export, image: Image) -> bytes:
    record: dict[str, Any] = {
        "id": image.id,
        "file_name": image.file_name,
        "width": image.width,
        "height": image.height,
    }
    if not export.copy(image, f"images/{image.file_name}"):
        record["coco_url"] = image.address
    return dumps(record)


@dataclass(slots=True)
class _Shape:
    """One COCO annotation, and what it was made of: several polygons with one uuid are one."""

    task: Task
    label: str
    annotations: list[Annotation]


def _shapes(export: Export, image: Image) -> list[_Shape]:
    polygons: dict[Any, _Shape] = {}
    waiting: list[_Shape] = []
    for task, annotation in image.annotations:
        shape = _Shape(task, annotation.label or "", [annotation])
        if annotation.type == "polygon":
            if len(annotation.geometry["vertices"]) < 3:
                export.report.leave_out(TOO_FEW_VERTICES, task, [annotation])
                continue
            if annotation.uuid is not None:
                key = (task.task_id, annotation.uuid, annotation.label, annotation.frame)
                if (known := polygons.get(key)) is not None:
                    known.annotations.append(annotation)
                    continue
                polygons[key] = shape
        elif annotation.type == "mask" and (reason := _unwritable(annotation)):
            export.report.leave_out(reason, task, [annotation])
            continue
        waiting.append(shape)
    return waiting


def _unwritable(annotation: Annotation) -> str | None:
    if not annotation.geometry.get("rle"):
        return NO_RLE
    return None if annotation.geometry.get("pixels") else NO_PIXELS


def _record(export: Export, shape: _Shape) -> dict[str, Any]:
    annotation = shape.annotations[0]
    geometry = annotation.geometry
    record: dict[str, Any] = {"iscrowd": 0}
    if annotation.type == "box" and not shapes.is_rotated(geometry):
        width, height = geometry["width"], geometry["height"]
        record["bbox"] = [geometry["left"], geometry["top"], width, height]
        record["area"], record["segmentation"] = width * height, []
    elif annotation.type == "box":
        record |= _polygons([shapes.corners(geometry)]) | {"rotation": geometry["rotation"]}
        export.report.change(ROTATED, shape.task, "box")
    elif annotation.type == "polygon":
        record |= _polygons([shapes.vertices(piece.geometry) for piece in shape.annotations])
    elif annotation.type == "ellipse":
        record |= _polygons([shapes.ellipse(geometry)])
        export.report.change(ELLIPSE, shape.task, "ellipse")
    elif annotation.type == "mask":
        record |= _mask(geometry)
    else:
        points = shapes.vertices(geometry) if annotation.type == "line" else [(geometry["x"], geometry["y"])]
        record |= _keypoints(points)
    record["attributes"] = annotation.attributes or {}
    if annotation.uuid is not None:
        record["uuid"] = annotation.uuid
    record["task_id"] = shape.task.task_id
    return record


def _polygons(pieces: list[list[shapes.Point]]) -> dict[str, Any]:
    left, top, right, bottom = shapes.bounds([point for piece in pieces for point in piece])
    return {
        "bbox": [left, top, right - left, bottom - top],
        "area": sum(shapes.area(piece) for piece in pieces),
        "segmentation": [[number for point in piece for number in point] for piece in pieces],
    }


def _mask(geometry: dict[str, Any]) -> dict[str, Any]:
    rle = geometry["rle"]
    encoded = {"size": rle["size"], "counts": rle["counts"].encode()}
    return {
        "bbox": [float(side) for side in coco_mask.toBbox(encoded)],
        "area": geometry["pixels"],
        "segmentation": {"size": rle["size"], "counts": rle["counts"]},
    }


def _keypoints(points: list[shapes.Point]) -> dict[str, Any]:
    left, top, right, bottom = shapes.bounds(points)
    return {
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "segmentation": [],
        "keypoints": [number for x, y in points for number in (x, y, 2)],
        "num_keypoints": len(points),
    }


COCO = Format(
    "coco",
    "annotations.json for pycocotools, detectron2, MMDetection, torchvision, FiftyOne",
    {
        "box": "bbox",
        "rotated box": "as polygon, with `rotation`",
        "polygon": "segmentation; pieces of one uuid together",
        "line": "as keypoints",
        "point": "as keypoints",
        "ellipse": "as polygon",
        "mask": "as compressed RLE",
    },
    write,
    needs_classes=True,
    needs_images=True,
    needs_sizes=True,
)
