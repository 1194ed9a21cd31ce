"""Label Studio: tasks.json and the labeling configuration that it goes with.

Source: Label Studio documentation, "Label Studio JSON format of annotated tasks". Lengths are percent of the image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from exports.export import Export
from exports.format import Format
from exports.geometry import bounds, corners, ellipse_axes, is_rotated, vertices
from exports.json_array import JsonArray
from exports.label_studio_rle import encode
from exports.pixels import decode
from exports.records import Image
from exports.text import DECIMALS, XmlWriter
from pipeline.datasets.records import Task
from pipeline.datasets.texts import text_of
from scale.annotations import Annotation

NO_PIXELS = "the mask has no pixels, or its image could not be read"
NO_TEXT = "the task has no text"
OUTSIDE = "it lies outside of the image"
POINT_WIDTH = 0.5
"""Percent of the image: how large Label Studio draws a point."""
CONTROLS = {
    "box": "RectangleLabels",
    "polygon": "PolygonLabels",
    "point": "KeyPointLabels",
    "ellipse": "EllipseLabels",
    "mask": "BrushLabels",
    "span": "Labels",
}
"""Label Studio's control tag for each annotation type; a region's type is the tag in lower case."""


def write(export: Export) -> None:
    """Write tasks.json, config.xml and, with copies, images/."""
    used: set[str] = set()
    ids = itertools.count(1)
    with JsonArray(export.work / "labelstudio-tasks") as tasks:

        def write_text(task: Task) -> bool:
            return _write_text(export, task, tasks, next(ids), used) if _is_text(task) else False

        for image in export.images(apart=write_text):
            tasks.append(_image_task(export, image, next(ids), used))
            export.report.wrote_image(image)
        with export.open("tasks.json") as file:
            tasks.copy_to(file)
            file.write(b"\n")
    _write_config(export, used)


def _task(
    number: int, data: Mapping[str, str], tasks: list[Task], result: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": number,
        "data": {"image": "", "text": "", **data},
        "annotations": [{"id": number, "result": result}],
        "meta": {"task_ids": [task.task_id for task in tasks], "split": tasks[0].split},
    }


def _image_task(export: Export, image: Image, number: int, used: set[str]) -> dict[str, Any]:
    copied = export.copy(image, f"images/{image.file_name}")
    result: list[dict[str, Any]] = []
    for task, annotation in image.annotations:
        if _is_outside(image, annotation):
            export.report.leave_out(OUTSIDE, task, [annotation])
            continue
        value = _value(image, annotation)
        if value is None:
            export.report.leave_out(NO_PIXELS, task, [annotation])
            continue
        used.add(annotation.type)
        region = _region(annotation, value, f"r{len(result) + 1}", "image")
        size = {"original_width": image.width, "original_height": image.height, "image_rotation": 0}
        result.append({**region, **size})
        export.report.wrote(task, annotation)
    address = f"images/{image.file_name}" if copied else image.address
    return _task(number, {"image": address}, image.tasks, result)


def _is_outside(image: Image, annotation: Annotation) -> bool:
    """Return whether no part of a shape lies in its image: Label Studio refuses such a region."""
    geometry = annotation.geometry
    if annotation.type == "mask":
        return False
    if annotation.type == "box":
        points = corners(geometry)
    else:
        points = [(geometry["x"], geometry["y"])] if annotation.type == "point" else vertices(geometry)
    left, top, right, bottom = bounds(points)
    assert image.width is not None
    assert image.height is not None
    return right < 0 or bottom < 0 or left > image.width or top > image.height


def _region(annotation: Annotation, value: dict[str, Any], region_id: str, target: str) -> dict[str, Any]:
    kind = CONTROLS[annotation.type].lower()
    meta: dict[str, Any] = {"attributes": annotation.attributes or {}}
    if annotation.uuid is not None:
        meta["uuid"] = annotation.uuid
    return {
        "id": region_id,
        "type": kind,
        "from_name": annotation.type,
        "to_name": target,
        "origin": "manual",
        "value": {**value, kind: [annotation.label]},
        "meta": meta,
    }


def _value(image: Image, annotation: Annotation) -> dict[str, Any] | None:
    """Return a shape in percent of the image; None for a mask without pixels."""
    geometry = annotation.geometry
    assert image.width is not None
    assert image.height is not None
    x_scale, y_scale = 100 / image.width, 100 / image.height
    if annotation.type == "mask":
        pixels = decode(geometry)
        return None if pixels is None or not pixels.any() else {"format": "rle", "rle": encode(pixels)}
    if annotation.type == "box":
        return _box(geometry, x_scale, y_scale)
    if annotation.type == "ellipse":
        centre_x, centre_y, radius_x, radius_y, angle = ellipse_axes(geometry)
        place = {"x": centre_x * x_scale, "y": centre_y * y_scale}
        axes = {"radiusX": radius_x * x_scale, "radiusY": radius_y * y_scale}
        return {**place, **axes, "rotation": _degrees(angle)}
    if annotation.type == "point":
        return {"x": geometry["x"] * x_scale, "y": geometry["y"] * y_scale, "width": POINT_WIDTH}
    return {"points": [[x * x_scale, y * y_scale] for x, y in vertices(geometry)], "closed": True}


def _box(geometry: Mapping[str, Any], x_scale: float, y_scale: float) -> dict[str, Any]:
    """Return a box that turns about its corner x, y."""
    size = {"width": geometry["width"] * x_scale, "height": geometry["height"] * y_scale}
    if not is_rotated(geometry):
        return {"x": geometry["left"] * x_scale, "y": geometry["top"] * y_scale, **size, "rotation": 0}
    corner_x, corner_y = corners({**geometry, "vertices": None})[0]
    place = {"x": round(corner_x, DECIMALS) * x_scale, "y": round(corner_y, DECIMALS) * y_scale}
    return {**place, **size, "rotation": _degrees(geometry["rotation"])}


def _degrees(radians: float) -> float:
    return round(math.degrees(radians) % 360, DECIMALS)


# Texts.


def _is_text(task: Task) -> bool:
    return task.type == "namedentityrecognition" or any(one.type == "span" for one in task.annotations)


def _write_text(export: Export, task: Task, tasks: JsonArray, number: int, used: set[str]) -> bool:
    """Write a task about a text. Return True: it is no image."""
    text = text_of(task.params)
    if text is None:
        export.report.leave_out(NO_TEXT, task, task.annotations)
        export.report.leave_out_task(NO_TEXT, task)
        return True
    used.add("span")
    result = [
        _region(annotation, _span(annotation, text), f"r{position}", "text")
        for position, annotation in enumerate(_spans(export, task), start=1)
    ]
    tasks.append(_task(number, {"text": text}, [task], result))
    export.report.wrote_task(task)
    return True


def _spans(export: Export, task: Task) -> Iterator[Annotation]:
    for annotation in task.annotations:
        if annotation.type == "span":
            export.report.wrote(task, annotation)
            yield annotation
        else:
            export.report.leave_out("the task shows no image", task, [annotation])


def _span(annotation: Annotation, text: str) -> dict[str, Any]:
    start, end = annotation.geometry["start"], annotation.geometry["end"]
    return {
        "start": start,
        "end": end,
        "text": annotation.geometry.get("text") or text[int(start) : int(end)],
    }


def _write_config(export: Export, used: set[str]) -> None:
    """Write the controls of the types that occur, with every class."""
    with export.open("config.xml") as file:
        xml = XmlWriter(file)
        xml.open("View")
        if used - {"span"} or not used:
            xml.empty("Image", {"name": "image", "value": "$image"})
        if "span" in used:
            xml.empty("Text", {"name": "text", "value": "$text"})
        for type_ in CONTROLS:
            if type_ in used:
                control = {"name": type_, "toName": "text" if type_ == "span" else "image"}
                xml.open(CONTROLS[type_], control)
                for label in export.classes.names:
                    xml.empty("Label", {"value": label})
                xml.close(CONTROLS[type_])
        xml.close("View")


LABELSTUDIO = Format(
    "labelstudio",
    "tasks.json, config.xml: Label Studio",
    {
        "box": "percent",
        "rotated box": "percent, turned about its corner",
        "polygon": "percent",
        "point": "percent",
        "ellipse": "percent",
        "mask": "brush",
        "span": "",
    },
    write,
    needs_classes=True,
    needs_images=True,
    needs_sizes=True,
)
