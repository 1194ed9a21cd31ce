"""CVAT XML 1.1: images with their shapes, and one file of tracks for each video task.

Source: CVAT documentation, "XML annotation format". Readers want the labels, with their attributes, before the images, so
the images wait in a side file until all labels are known.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from exports.export import Export
from exports.format import Format
from exports.geometry import ellipse_axes, is_rotated, vertices
from exports.names import Names
from exports.pixels import decode
from exports.records import Image
from exports.text import XmlWriter, attribute_text, number
from exports.tracks import tracks_of
from pipeline.datasets.attachments import frames, given_size
from pipeline.datasets.records import Task
from scale.annotations import Annotation

DUMPED = "1970-01-01 00:00:00.000000+00:00"
"""Readers require the time of the export; the same dataset has to give the same bytes."""
NOT_MEASURED = "the mask has no pixels"
NO_FRAME = "it is on no frame of the video"
Labels = dict[str, set[str]]
"""Names of attributes by label."""
UNKNOWN_SIZE = (0, 0)
"""Readers of tracks require a size."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a file: its name and size, before its shapes."""

    name: str
    size: int
    """Images or frames."""
    mode: str
    """annotation for images, interpolation for a video."""
    pixels: tuple[int, int] | None = None
    """Width and height of a video."""
    subsets: tuple[str, ...] = ()
    """Splits of the images; none where there is only one."""


def write(export: Export) -> None:
    """Write annotations.xml for all images, and <task_id>.xml for each video task."""
    folders = Names()
    folders.name("annotations")
    labels: Labels = {}
    side = export.work / "cvat-images.xml"
    count = 0
    with side.open("wb") as file:
        xml = XmlWriter(file, depth=1)
        for image in export.images(apart=lambda task: _write_video(export, task, folders)):
            _write_image(export, image, xml, count, labels)
            count += 1
    with export.open("annotations.xml") as file:
        xml = XmlWriter(file)
        head = Head("annotations", count, "annotation", subsets=export.splits if export.has_splits else ())
        _write_head(xml, export, head, labels)
        with side.open("rb") as images:
            shutil.copyfileobj(images, file)
        xml.close("annotations")
    side.unlink()


def _write_head(xml: XmlWriter, export: Export, head: Head, labels: Labels) -> None:
    xml.declaration()
    xml.open("annotations")
    xml.leaf("version", "1.1")
    xml.open("meta")
    # Readers expect the subsets of images in the head of a project; a task has none.
    level = "project" if head.subsets else "task"
    xml.open(level)
    xml.leaf("name", head.name)
    xml.leaf("size", head.size)
    xml.leaf("mode", head.mode)
    xml.leaf("overlap", 0)
    xml.leaf("start_frame", 0)
    xml.leaf("stop_frame", max(head.size - 1, 0))
    _write_labels(xml, export, labels)
    if head.pixels is not None:
        xml.open("original_size")
        xml.leaf("width", head.pixels[0])
        xml.leaf("height", head.pixels[1])
        xml.close("original_size")
    for subset in head.subsets:
        xml.leaf("subset", subset)
    xml.close(level)
    xml.leaf("dumped", DUMPED)
    xml.close("meta")


def _write_labels(xml: XmlWriter, export: Export, labels: Labels) -> None:
    xml.open("labels")
    for label in export.classes.names:
        xml.open("label")
        xml.leaf("name", label)
        xml.open("attributes")
        for attribute in sorted(labels.get(label, ())):
            xml.open("attribute")
            xml.leaf("name", attribute)
            xml.leaf("mutable", "True")
            xml.leaf("input_type", "text")
            xml.leaf("default_value", "")
            xml.leaf("values", "")
            xml.close("attribute")
        xml.close("attributes")
        xml.close("label")
    xml.close("labels")


def _write_image(export: Export, image: Image, xml: XmlWriter, number_: int, labels: Labels) -> None:
    copied = export.copy(image, f"images/{image.file_name}")
    xml.open(
        "image",
        {
            "id": number_,
            "name": image.file_name if copied else image.address,
            **({"subset": image.split} if export.has_splits else {}),
            "width": image.width,
            "height": image.height,
        },
    )
    for task, annotation in image.annotations:
        shape = _shape(annotation)
        if shape is None:
            export.report.leave_out(NOT_MEASURED, task, [annotation])
            continue
        _note(annotation, labels)
        name, values = shape
        attributes = {"label": annotation.label, "source": "manual", "occluded": 0, **values, "z_order": 0}
        _write_shape(xml, name, attributes, annotation)
        export.report.wrote(task, annotation)
    xml.close("image")
    export.report.wrote_image(image)


def _write_shape(xml: XmlWriter, name: str, attributes: Mapping[str, Any], annotation: Annotation) -> None:
    xml.open(name, attributes)
    for key, value in sorted((annotation.attributes or {}).items()):
        xml.leaf("attribute", attribute_text(value), {"name": key})
    xml.close(name)


def _note(annotation: Annotation, labels: Labels) -> None:
    labels.setdefault(annotation.label or "", set()).update(annotation.attributes or ())


def _shape(annotation: Annotation) -> tuple[str, dict[str, Any]] | None:
    """Return CVAT's element for a shape with its coordinates; None for a mask without pixels."""
    geometry = annotation.geometry
    if annotation.type == "box":
        return "box", _box(geometry)
    if annotation.type == "mask":
        return _mask(geometry)
    if annotation.type == "ellipse":
        centre_x, centre_y, radius_x, radius_y, angle = ellipse_axes(geometry)
        values = {"cx": centre_x, "cy": centre_y, "rx": radius_x, "ry": radius_y}
        return "ellipse", _turned({name: number(value) for name, value in values.items()}, angle)
    points = [(geometry["x"], geometry["y"])] if annotation.type == "point" else vertices(geometry)
    text = ";".join(f"{number(x)},{number(y)}" for x, y in points)
    return {"polygon": "polygon", "line": "polyline", "point": "points"}[annotation.type], {"points": text}


def _box(geometry: Mapping[str, Any]) -> dict[str, Any]:
    left, top, width, height = (geometry[key] for key in ("left", "top", "width", "height"))
    values = {
        "xtl": number(left),
        "ytl": number(top),
        "xbr": number(left + width),
        "ybr": number(top + height),
    }
    return _turned(values, geometry["rotation"]) if is_rotated(geometry) else values


def _turned(values: dict[str, Any], radians: float) -> dict[str, Any]:
    """Add CVAT's rotation: degrees, clockwise, about the centre, from 0 to 360."""
    degrees = math.degrees(radians) % 360
    return {**values, "rotation": number(degrees)} if degrees else values


def _mask(geometry: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return CVAT's mask: lengths of runs along the rows of the bounding box, beginning with a run outside of the mask."""
    pixels = decode(geometry)
    if pixels is None or not geometry.get("pixels"):
        return None
    left, top, width, height = (geometry[key] for key in ("left", "top", "width", "height"))
    flat = pixels[top : top + height, left : left + width].ravel()
    runs, value, length = [], 0, 0
    for pixel in flat.tolist():
        if pixel == value:
            length += 1
        else:
            runs.append(length)
            value, length = pixel, 1
    runs.append(length)
    text = ", ".join(str(run) for run in runs)
    return "mask", {"rle": text, "left": left, "top": top, "width": width, "height": height}


# Videos.


def _write_video(export: Export, task: Task, folders: Names) -> bool:
    """Write the tracks of a task that is a video. Return whether it is one."""
    if not _is_video(task):
        return False
    tracks = _tracks(export, task)
    used = [annotation for track in tracks for annotation in track]
    labels: Labels = {}
    for annotation in used:
        _note(annotation, labels)
    size = _frame_count(task, used)
    pixels = _pixels(export, task)
    with export.open(f"{folders.name(task.task_id)}.xml") as file:
        xml = XmlWriter(file)
        _write_head(xml, export, Head(task.task_id, size, "interpolation", pixels), labels)
        for number_, track in enumerate(tracks):
            _write_track(xml, number_, track, size)
        xml.close("annotations")
    export.report.wrote_task(task)
    for annotation in used:
        export.report.wrote(task, annotation)
    return True


def _is_video(task: Task) -> bool:
    return (task.type or "").startswith("video") or any(
        annotation.frame is not None for annotation in task.annotations
    )


def _pixels(export: Export, task: Task) -> tuple[int, int]:
    """Return width and height of the video's first frame whose size is known."""
    sizes = ((image.width, image.height) for image in export.images_of(task))
    known = ((width, height) for width, height in sizes if width is not None and height is not None)
    return next(known, given_size(task.metadata, task.params) or UNKNOWN_SIZE)


def _frame_count(task: Task, annotations: Iterable[Annotation]) -> int:
    """Return the number of images of a list; of a video the number of frames up to the last labeled one."""
    listed = frames(task.type, task.params)
    return len(listed) if listed else 1 + max((one.frame or 0 for one in annotations), default=-1)


def _tracks(export: Export, task: Task) -> list[list[Annotation]]:
    """Return the tracks of a video; annotations that can be in none are counted as left out."""
    placed = []
    for annotation in task.annotations:
        if annotation.frame is None:
            export.report.leave_out(NO_FRAME, task, [annotation])
        elif _shape(annotation) is None:
            export.report.leave_out(NOT_MEASURED, task, [annotation])
        else:
            placed.append(annotation)
    return tracks_of(placed)


def _write_track(xml: XmlWriter, number_: int, track: list[Annotation], size: int) -> None:
    """Write one object: a key frame for each of its frames, and one marked as outside where it has gone."""
    xml.open("track", {"id": number_, "label": track[0].label, "source": "manual"})
    for annotation, after in zip(track, [*track[1:], None], strict=True):
        shape = _shape(annotation)
        assert shape is not None
        assert annotation.frame is not None
        _write_key_frame(xml, shape, annotation, annotation.frame, outside=False)
        following = annotation.frame + 1
        if following < size and (after is None or after.frame != following):
            _write_key_frame(xml, shape, annotation, following, outside=True)
    xml.close("track")


def _write_key_frame(
    xml: XmlWriter, shape: tuple[str, dict[str, Any]], annotation: Annotation, frame: int, *, outside: bool
) -> None:
    name, values = shape
    attributes = {
        "frame": frame,
        "outside": int(outside),
        "occluded": 0,
        "keyframe": 1,
        **values,
        "z_order": 0,
    }
    _write_shape(xml, name, attributes, annotation)


CVAT = Format(
    "cvat",
    "annotations.xml, and <task_id>.xml with the tracks of each video: CVAT for images and for video 1.1",
    {
        "box": "",
        "rotated box": "box with rotation in degrees",
        "polygon": "",
        "line": "polyline",
        "point": "points",
        "ellipse": "ellipse with rotation in degrees",
        "mask": "run lengths",
    },
    write,
    needs_classes=True,
    needs_images=True,
    needs_copies=True,
    needs_sizes=True,
)
