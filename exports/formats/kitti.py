"""KITTI object labels: boxes of images in 2D, and lidar cuboids in 3D where the task gives the calibration.

Source: KITTI object development kit, readme.txt. A task gives its calibration as metadata.calibration, with the keys of
KITTI's own calibration files: P2 (12 numbers), R0_rect (9, optional) and Tr_velo_to_cam (12).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.export import Export
from exports.format import Format
from exports.geometry import bounds, corners, is_rotated
from exports.names import Names
from exports.text import number
from pipeline.datasets.records import Task
from scale.annotations import Annotation

ROTATED = "a rotated box became the upright box around it"
NO_CALIBRATION = "the task's metadata gives no calibration"
NO_FRAME = "it is on no frame"
RENAMED = "a label was written without its spaces"
UNKNOWN = "-1 -1 -1 -1000 -1000 -1000 -10"
"""Dimensions, location and rotation of an object that has none in 3D, as the development kit writes them."""
FOLDERS = {"train": "training", "test": "testing"}


def write(export: Export) -> None:
    """Write <split>/label_2/<image>.txt, the images or their addresses in image_2/, and calib/ for lidar frames."""
    names = Names()
    with ExitStack() as stack:
        addresses = {
            split: stack.enter_context(export.open(f"{_folder(split)}/image_2/addresses.txt"))
            for split in export.splits
        }
        for image in export.images(apart=lambda task: _write_lidar(export, task, names)):
            folder = _folder(image.split)
            if not export.copy(image, f"{folder}/image_2/{image.file_name}"):
                addresses[image.split].write(f"{image.stem} {image.address}\n".encode())
            lines = []
            for task, annotation in image.annotations:
                lines.append(_line_2d(export, task, annotation))
                export.report.wrote(task, annotation)
            _write_lines(export, f"{folder}/label_2/{image.stem}.txt", lines)
            export.report.wrote_image(image)


def _folder(split: str) -> str:
    return FOLDERS.get(split, split)


def _write_lines(export: Export, name: str, lines: Sequence[str]) -> None:
    with export.open(name) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _type(export: Export, task: Task, annotation: Annotation) -> str:
    """Return the label as one word: columns are separated by spaces."""
    label = annotation.label or ""
    word = re.sub(r"\s+", "_", label)
    if word != label:
        export.report.change(RENAMED, task, annotation.type)
    return word


def _line_2d(export: Export, task: Task, annotation: Annotation) -> str:
    if is_rotated(annotation.geometry):
        export.report.change(ROTATED, task, annotation.type)
    box = " ".join(number(value) for value in bounds(corners(annotation.geometry)))
    return f"{_type(export, task, annotation)} 0 0 -10 {box} {UNKNOWN}"


# Lidar.


@dataclass(frozen=True, slots=True)
class Calibration:
    """From the lidar's coordinates (x forward, y left, z up, metres) to the camera's (x right, y down, z forward) and its pixels."""

    projection: NDArray[np.float64]
    """3 × 4: camera to pixels."""
    to_camera: NDArray[np.float64]
    """3 × 4: lidar to rectified camera."""
    rectification: NDArray[np.float64]
    velo_to_cam: NDArray[np.float64]


def _calibration(task: Task) -> Calibration | None:
    given = task.metadata.get("calibration")
    if not isinstance(given, dict):
        return None
    projection, velo = _matrix(given.get("P2"), 4), _matrix(given.get("Tr_velo_to_cam"), 4)
    rectification = np.eye(3) if given.get("R0_rect") is None else _matrix(given["R0_rect"], 3)
    if projection is None or velo is None or rectification is None:
        return None
    return Calibration(projection, rectification @ velo, rectification, velo)


def _matrix(values: Any, columns: int) -> NDArray[np.float64] | None:
    """Return 3 rows of numbers, also where they are given as rows; None where they are something else."""
    try:
        matrix = np.asarray(values, dtype=np.float64).reshape(3, columns)
    except (TypeError, ValueError):
        return None
    return matrix if np.isfinite(matrix).all() else None


def _write_lidar(export: Export, task: Task, names: Names) -> bool:
    """Write the cuboids of a lidar task by frame. Return whether it is one."""
    if not any(annotation.type == "cuboid3d" for annotation in task.annotations):
        return False
    calibration = _calibration(task)
    by_frame: dict[int, list[Annotation]] = defaultdict(list)
    for annotation in task.annotations:
        if annotation.type != "cuboid3d":
            export.report.leave_out("its frame is not an image of its own", task, [annotation])
        elif calibration is None:
            export.report.leave_out(NO_CALIBRATION, task, [annotation])
        elif annotation.frame is None:
            export.report.leave_out(NO_FRAME, task, [annotation])
        else:
            by_frame[annotation.frame].append(annotation)
    for frame, cuboids in sorted(by_frame.items()):
        assert calibration is not None
        stem = f"{names.name(task.task_id)}_{frame:06d}"
        lines = [_line_3d(export, task, annotation, calibration) for annotation in cuboids]
        folder = _folder(task.split)
        _write_lines(export, f"{folder}/label_2/{stem}.txt", lines)
        _write_lines(export, f"{folder}/calib/{stem}.txt", _calibration_lines(calibration))
        export.report.wrote(task, *cuboids)
    return True


def _calibration_lines(calibration: Calibration) -> list[str]:
    projection = ("P0", "P1", "P2", "P3")
    matrices = [
        *((name, calibration.projection) for name in projection),
        ("R0_rect", calibration.rectification),
        ("Tr_velo_to_cam", calibration.velo_to_cam),
        ("Tr_imu_to_velo", np.hstack([np.eye(3), np.zeros((3, 1))])),
    ]
    return [f"{name}: {' '.join(f'{value:.12e}' for value in matrix.ravel())}" for name, matrix in matrices]


def _line_3d(export: Export, task: Task, annotation: Annotation, calibration: Calibration) -> str:
    """Return a cuboid's line: height, width, length; the centre of its bottom in the camera's coordinates; rotation_y."""
    geometry = annotation.geometry
    centre = np.array([geometry["position"][axis] for axis in "xyz"], np.float64)
    width, length, height = (float(geometry["dimensions"][axis]) for axis in "xyz")
    yaw = float(geometry.get("yaw") or 0.0)
    bottom = calibration.to_camera @ np.append(centre - [0, 0, height / 2], 1.0)
    # Scale's yaw is 0 along +y and counter-clockwise; KITTI's rotation_y is 0 along the camera's x and clockwise from above.
    heading = calibration.to_camera[:, :3] @ np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    rotation = float(np.arctan2(-heading[2], heading[0]))
    alpha = _normal(rotation - float(np.arctan2(bottom[0], bottom[2])))
    box = _seen(_vertices(centre, (width, length, height), yaw), calibration)
    values = (*box, height, width, length, *bottom.tolist(), rotation)
    return f"{_type(export, task, annotation)} 0 0 {number(alpha)} {' '.join(number(float(value)) for value in values)}"


def _normal(angle: float) -> float:
    """Return an angle between -π and π."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _vertices(
    centre: NDArray[np.float64], size: tuple[float, float, float], yaw: float
) -> NDArray[np.float64]:
    """Return the 8 corners of a cuboid, a row each: size along its own right, front and up."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    made: NDArray[np.float64] = signs * np.array(size) / 2 @ turn.T + centre
    return made


def _seen(points: NDArray[np.float64], calibration: Calibration) -> tuple[float, float, float, float]:
    """Return the box around the corners in pixels; -1 four times where one of them is behind the camera."""
    camera = calibration.to_camera @ np.vstack([points.T, np.ones(len(points))])
    pixels = calibration.projection @ np.vstack([camera, np.ones(len(points))])
    if (pixels[2] <= 0).any():
        return -1.0, -1.0, -1.0, -1.0
    x, y = pixels[0] / pixels[2], pixels[1] / pixels[2]
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


KITTI = Format(
    "kitti",
    "<split>/label_2/*.txt: KITTI object detection, in 2D and in 3D",
    {
        "box": "",
        "rotated box": "the upright box around it",
        "cuboid3d": "in the camera's coordinates, where metadata.calibration is given",
    },
    write,
    needs_classes=True,
    needs_images=True,
    needs_copies=True,
)
