"""Pascal VOC: one XML file an image. Source: "The PASCAL Visual Object Classes Challenge 2012 Development Kit"."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import BinaryIO

from exports.export import Export
from exports.format import Format
from exports.geometry import bounds, corners, is_rotated
from exports.pixels import color
from exports.records import Image
from exports.text import XmlWriter, attribute_text
from pipeline.datasets.records import Task
from scale.annotations import Annotation

ROTATED = "a rotated box became the upright box around it"
ROUNDED = "coordinates were rounded to whole pixels"


def write(export: Export) -> None:
    """Write Annotations/<image>.xml, ImageSets/Main/<split>.txt, labelmap.txt and, with copies, JPEGImages/."""
    with ExitStack() as stack:
        sets = {
            split: stack.enter_context(export.open(f"ImageSets/Main/{split}.txt")) for split in export.splits
        }
        for image in export.images():
            export.copy(image, f"JPEGImages/{image.file_name}")
            sets[image.split].write(f"{image.stem}\n".encode())
            with export.open(f"Annotations/{image.stem}.xml") as file:
                _write_image(export, image, file)
            export.report.wrote_image(image)
    _write_label_map(export)


def _write_image(export: Export, image: Image, file: BinaryIO) -> None:
    xml = XmlWriter(file)
    xml.open("annotation")
    xml.leaf("folder", "JPEGImages")
    xml.leaf("filename", image.file_name)
    if export.copied(image) is None:
        xml.leaf("path", image.address)
    xml.open("source")
    xml.leaf("database", "Scale")
    xml.close("source")
    xml.open("size")
    xml.leaf("width", image.width)
    xml.leaf("height", image.height)
    xml.leaf("depth", 3)
    xml.close("size")
    xml.leaf("segmented", 0)
    for task, annotation in image.annotations:
        _write_object(export, task, annotation, xml)
        export.report.wrote(task, annotation)
    xml.close("annotation")


def _write_object(export: Export, task: Task, annotation: Annotation, xml: XmlWriter) -> None:
    if is_rotated(annotation.geometry):
        export.report.change(ROTATED, task, annotation.type)
    left, top, right, bottom = bounds(corners(annotation.geometry))
    # The devkit counts pixels from 1 and names the first and the last pixel that the box touches.
    pixels = (math.floor(left) + 1, math.floor(top) + 1, math.ceil(right), math.ceil(bottom))
    if pixels != (left + 1, top + 1, right, bottom):
        export.report.change(ROUNDED, task, annotation.type)
    xml.open("object")
    xml.leaf("name", annotation.label)
    xml.leaf("pose", "Unspecified")
    xml.leaf("truncated", 0)
    xml.leaf("difficult", 0)
    xml.leaf("occluded", 0)
    xml.open("bndbox")
    for name, pixel in zip(("xmin", "ymin", "xmax", "ymax"), pixels, strict=True):
        xml.leaf(name, pixel)
    xml.close("bndbox")
    if annotation.attributes:
        xml.open("attributes")
        for name, value in sorted(annotation.attributes.items()):
            xml.open("attribute")
            xml.leaf("name", name)
            xml.leaf("value", attribute_text(value))
            xml.close("attribute")
        xml.close("attributes")
    xml.close("object")


def _write_label_map(export: Export) -> None:
    """Write the label map of datumaro and CVAT: `label:r,g,b:parts:actions`, the background first."""
    with export.open("labelmap.txt") as file:
        file.write(b"# label:color_rgb:parts:actions\nbackground:0,0,0::\n")
        for position, label in enumerate(export.classes.names):
            red, green, blue = color(position + 1)
            name = label.translate({ord(":"): "_", ord("\n"): "_", ord("\r"): "_"})
            if name != "background":
                file.write(f"{name}:{red},{green},{blue}::\n".encode())


VOC = Format(
    "voc",
    "Annotations/*.xml, ImageSets/Main/*.txt, labelmap.txt: Pascal VOC",
    {"box": "whole pixels, counted from 1", "rotated box": "the upright box around it"},
    write,
    needs_classes=True,
    needs_images=True,
    needs_copies=True,
    needs_sizes=True,
)
