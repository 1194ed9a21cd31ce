"""YOLO as Ultralytics reads it: data.yaml, images/<split>/ and one labels/<split>/*.txt for each image.

Coordinates are shares of the image's width and height, within 0 and 1; classes count from 0. With --images link the images
are not there: image_addresses.tsv names the file that each address belongs into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import yaml

from exports import geometry as shapes
from exports.export import Export
from exports.format import Format
from exports.records import Image
from pipeline.datasets.records import Task, read_tasks
from scale.annotations import Annotation

EXTENSIONS = frozenset(
    (
        "avif",
        "bmp",
        "dng",
        "heic",
        "jp2",
        "jpeg",
        "jpeg2000",
        "jpg",
        "mpo",
        "pfm",
        "png",
        "tif",
        "tiff",
        "webp",
    )
)
"""What Ultralytics takes for an image. Source: ultralytics/data/utils.py, IMG_FORMATS."""
BY_MEDIA_TYPE = {"image/png": ".png", "image/webp": ".webp", "image/bmp": ".bmp", "image/tiff": ".tiff"}

OUTSIDE = "it lies outside of the image"
NO_AREA = "it has no area"
CLIPPED = "a coordinate outside of the image was moved to its edge"
BOX_TO_POLYGON = "a box became a polygon"
ROTATED_TO_POLYGON = "a rotated box became a polygon"
ELLIPSE_TO_POLYGON = f"an ellipse became a polygon of {shapes.ELLIPSE_POINTS} points"
SEVERAL_PIECES = "a polygon of several pieces became several objects"
TOO_FEW_VERTICES = "a polygon needs at least 3 vertices"


class LeftOut(Exception):
    """Raised when a shape has no place in the image. args[0] is the reason."""


@dataclass(frozen=True)
class Line:
    """The numbers of one object after its class, and what was changed to get them."""

    numbers: list[float]
    changes: tuple[str, ...] = ()


MakeLine = Callable[[Annotation, int, int], Line]
"""(annotation, width, height) → its line. Raises LeftOut."""


def write(export: Export, make: MakeLine, extra: dict[str, object] | None = None) -> None:
    """Write data.yaml, and for each image a label file of one line an object, which `make` builds."""
    with export.open("data.yaml") as file:
        file.write(_data(export, extra or {}).encode())
    if export.options.copies:
        for image in export.images():
            export.copy(image, f"images/{image.split}/{file_name(image)}")
            _write_image(export, image, make)
        return
    with export.open("image_addresses.tsv") as addresses:
        for image in export.images():
            _write_address(addresses, image)
            _write_image(export, image, make)


def _data(export: Export, extra: dict[str, object]) -> str:
    """Return data.yaml. Ultralytics requires train and val: a missing one names the images of `train`."""
    splits = {name: f"images/{name}" for name in export.splits}
    first = next(iter(splits.values()))
    train = splits.pop("train", first)
    data: dict[str, object] = {
        "train": train,
        "val": splits.pop("val", splits.pop("validation", train)),
        "test": splits.pop("test", None),
        **splits,
        "nc": len(export.classes.names),
        "names": list(export.classes.names),
        **extra,
    }
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=10_000)


def file_name(image: Image) -> str:
    """Return the image's name, with an extension that Ultralytics knows."""
    if image.file_name.rpartition(".")[2].lower() in EXTENSIONS and "." in image.file_name:
        return image.file_name
    return f"{image.stem}{BY_MEDIA_TYPE.get(image.media_type or '', '.jpg')}"


def _write_address(file: BinaryIO, image: Image) -> None:
    file.write(f"images/{image.split}/{file_name(image)}\t{image.address}\n".encode(errors="replace"))


def _write_image(export: Export, image: Image, make: MakeLine) -> None:
    assert image.width is not None
    assert image.height is not None
    lines = []
    for task, annotation in image.annotations:
        try:
            line = make(annotation, image.width, image.height)
        except LeftOut as reason:
            export.report.leave_out(str(reason), task, [annotation])
            continue
        lines.append(_text(export.classes.ids[annotation.label or ""], line.numbers))
        for change in line.changes:
            export.report.change(change, task, annotation.type)
        export.report.wrote(task, annotation)
    if any(annotation.type == "polygon" for _, annotation in image.annotations):
        for task in _several_pieces(image):
            export.report.change(SEVERAL_PIECES, task, "polygon")
    with export.open(f"labels/{image.split}/{file_name(image).rpartition('.')[0]}.txt") as file:
        file.write("".join(lines).encode())
    export.report.wrote_image(image)


def _text(class_id: int, numbers: list[float]) -> str:
    """Return the number with 8 decimals: a hundredth of a pixel in an image of a million."""
    return ("%d" + " %.8f" * len(numbers) + "\n") % (class_id, *numbers)


def _several_pieces(image: Image) -> Iterator[Task]:
    seen: set[tuple[str, str]] = set()
    reported: set[tuple[str, str]] = set()
    for task, annotation in image.annotations:
        if annotation.type == "polygon" and annotation.uuid is not None:
            key = (task.task_id, annotation.uuid)
            if key in seen and key not in reported:
                reported.add(key)
                yield task
            seen.add(key)


# Shapes.


def detect_line(annotation: Annotation, width: int, height: int) -> Line:
    """Centre x, centre y, width, height of a box."""
    left, top, right, bottom, changes = _clipped_box(annotation, width, height)
    return Line(
        [
            (left + right) / 2 / width,
            (top + bottom) / 2 / height,
            (right - left) / width,
            (bottom - top) / height,
        ],
        changes,
    )


def _clipped_box(
    annotation: Annotation, width: int, height: int
) -> tuple[float, float, float, float, tuple[str, ...]]:
    """Return left, top, right, bottom of what lies in the image, and what was changed. Raises LeftOut."""
    geometry = annotation.geometry
    left, top = geometry["left"], geometry["top"]
    right, bottom = left + geometry["width"], top + geometry["height"]
    if right <= left or bottom <= top:
        raise LeftOut(NO_AREA)
    inside = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise LeftOut(OUTSIDE)
    return *inside, (CLIPPED,) if inside != (left, top, right, bottom) else ()


def obb_line(annotation: Annotation, width: int, height: int) -> Line:
    """Return the four corners of a box. Corners outside of the image are moved to its edge."""
    if not shapes.is_rotated(annotation.geometry):
        left, top, right, bottom, changes = _clipped_box(annotation, width, height)
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
        return Line(_shares(points, width, height), changes)
    points = shapes.corners(annotation.geometry)
    if shapes.area(points) == 0:
        raise LeftOut(NO_AREA)
    if not shapes.clip_polygon(points, width, height):
        raise LeftOut(OUTSIDE)
    moved = [(min(max(x, 0), width), min(max(y, 0), height)) for x, y in points]
    return Line(_shares(moved, width, height), (CLIPPED,) if moved != points else ())


def segment_line(annotation: Annotation, width: int, height: int) -> Line:
    """Return the vertices of a polygon; of a box its corners, of an ellipse points along it."""
    geometry = annotation.geometry
    changes: tuple[str, ...] = ()
    if annotation.type == "box":
        points = shapes.corners(geometry)
        changes = (ROTATED_TO_POLYGON if shapes.is_rotated(geometry) else BOX_TO_POLYGON,)
    elif annotation.type == "ellipse":
        points = shapes.ellipse(geometry)
        changes = (ELLIPSE_TO_POLYGON,)
    else:
        points = shapes.vertices(geometry)
    if len(points) < 3:
        raise LeftOut(TOO_FEW_VERTICES if annotation.type == "polygon" else NO_AREA)
    if all(0 <= x <= width and 0 <= y <= height for x, y in points):
        return Line(_shares(points, width, height), changes)
    inside = shapes.clip_polygon(points, width, height)
    if len(inside) < 3 or shapes.area(inside) == 0:
        raise LeftOut(OUTSIDE)
    return Line(_shares(inside, width, height), (*changes, CLIPPED))


def pose_line(annotation: Annotation, width: int, height: int, *, keypoints: int) -> Line:
    """Return the box around a line's vertices or a point, then x, y, 2 for each of them and 0, 0, 0 up to `keypoints`."""
    points = _keypoints(annotation)
    if not any(0 <= x <= width and 0 <= y <= height for x, y in points):
        raise LeftOut(OUTSIDE)
    moved = [(min(max(x, 0), width), min(max(y, 0), height)) for x, y in points]
    left, top, right, bottom = shapes.bounds(moved)
    numbers = [
        (left + right) / 2 / width,
        (top + bottom) / 2 / height,
        (right - left) / width,
        (bottom - top) / height,
    ]
    for x, y in moved:
        numbers += [x / width, y / height, 2]
    numbers += [0.0, 0.0, 0.0] * (keypoints - len(moved))
    return Line(numbers, (CLIPPED,) if moved != points else ())


def _keypoints(annotation: Annotation) -> list[shapes.Point]:
    if annotation.type == "line":
        return shapes.vertices(annotation.geometry)
    return [(annotation.geometry["x"], annotation.geometry["y"])]


def write_pose(export: Export) -> None:
    """Write a pose dataset. Every object has the same number of keypoints: that of the line with the most vertices."""
    most = 1
    for task in read_tasks(export.service.reader, export.version.id):
        for annotation in task.annotations:
            if annotation.type == "line" and annotation.warning is None:
                most = max(most, len(annotation.geometry["vertices"]))
    write(export, partial(pose_line, keypoints=most), {"kpt_shape": [most, 3]})


def _shares(points: list[shapes.Point], width: int, height: int) -> list[float]:
    return [number for x, y in points for number in (x / width, y / height)]


def _format(task: str, holds: dict[str, str], run: Callable[[Export], None], what: str = "boxes") -> Format:
    return Format(
        f"yolo-{task}",
        f"data.yaml, images and labels for Ultralytics: {what}",
        holds,
        run,
        needs_classes=True,
        needs_images=True,
        needs_sizes=True,
        needs_copies=True,
    )


YOLO_DETECT = _format("detect", {"box": ""}, lambda export: write(export, detect_line))
YOLO_SEGMENT = _format(
    "segment",
    {
        "polygon": "one object a piece",
        "box": "as polygon",
        "rotated box": "as polygon",
        "ellipse": "as polygon",
    },
    lambda export: write(export, segment_line),
    "polygons",
)
YOLO_OBB = _format(
    "obb",
    {"box": "four corners", "rotated box": "four corners"},
    lambda export: write(export, obb_line),
    "rotated boxes",
)
YOLO_POSE = _format(
    "pose",
    {"line": "vertices as keypoints", "point": "one keypoint"},
    write_pose,
    "keypoints",
)

YOLO = (YOLO_DETECT, YOLO_SEGMENT, YOLO_OBB, YOLO_POSE)
