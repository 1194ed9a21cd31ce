"""KITTI: boxes of images, and cuboids in the camera's coordinates."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from tests.exports.conftest import Export
from tests.exports.kit import one, shapes_of, whole_version
from tests.exports.labeled import Labeled, box

CALIBRATION = {
    "P2": [700, 0, 600, 0, 0, 700, 180, 0, 0, 0, 1, 0],
    "Tr_velo_to_cam": [0, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0],
}


def test_datumaro_reads_kitti_boxes(filled: Labeled, tmp_path: Path, read_back: Callable[..., Any]) -> None:
    format_ = find_format("kitti")
    assert format_ is not None
    version = whole_version(filled, "kitti")
    write_export(filled.service, version, format_, Options(images="copy"), str(tmp_path / "kitti"))
    shapes = shapes_of(read_back("datumaro", "kitti_detection", tmp_path / "kitti"), "street")
    assert any(shape["points"] == pytest.approx([10.25, -4.5, 60.25, 15.625], abs=0.01) for shape in shapes)


def test_cuboids_without_a_calibration_are_left_out_of_kitti(export: Export) -> None:
    left = [entry for entry in export("kitti")["left_out"] if entry["type"] == "cuboid3d"]
    assert [(entry["reason"], entry["count"]) for entry in left] == [
        ("the task's metadata gives no calibration", 1)
    ]


def test_a_cuboid_with_a_calibration_is_a_kitti_object(
    labeled: Labeled, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    cuboid = {
        "uuid": "l-1",
        "label": "Car",
        "position": {"x": 10, "y": 1, "z": 0.5},
        "dimensions": {"x": 2, "y": 4.5, "z": 1.5},
        "yaw": -1.5707963267948966,
    }
    file = labeled.files.add("/l/one.json", b'[{"cuboids": [%s]}]' % json.dumps(cuboid).encode())
    params = {"attachment_type": "json", "attachments": ["https://x.example/0"]}
    task = {"params": params, "metadata": {"calibration": CALIBRATION}}
    labeled.post("lidar", "lidarannotation", {"annotations": {"url": file}}, **task)
    labeled.post_image("flat", "https://x.example/1.jpg", box("Car", "u", left=1, top=2, width=3, height=4))
    format_ = find_format("kitti")
    assert format_ is not None
    write_export(labeled.service, whole_version(labeled, "k"), format_, Options(), str(tmp_path / "out"))
    items = read_back("datumaro", "kitti3d", tmp_path / "out" / "training")
    attributes = one(shapes_of(items, "lidar_000000"), "Bbox")["attributes"]
    assert attributes["dimensions"] == "[1.5, 2.0, 4.5]"
    assert attributes["location"] == "[-1.0, 0.25, 10.0]"  # one metre to the left, its bottom 0.25 m below
    assert float(attributes["rotation_y"]) == pytest.approx(-1.5708, abs=1e-4)  # it faces forward
