"""VOC, CVAT, MOT and KITTI, read back by datumaro and supervision."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from pipeline.datasets import versions
from pipeline.datasets.versions import Request
from tests.exports.conftest import Export
from tests.exports.labeled import Labeled, box

VIDEO = "65a000000000000000000020"
CALIBRATION = {
    "P2": [700, 0, 600, 0, 0, 700, 180, 0, 0, 0, 1, 0],
    "Tr_velo_to_cam": [0, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0],
}


def shapes_of(items: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    (item,) = (one for one in items if one["id"].rpartition("/")[2] == name)
    shapes: list[dict[str, Any]] = item["shapes"]
    return shapes


def one(shapes: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (shape,) = (one for one in shapes if one["kind"] == kind)
    return shape


def whole_version(labeled: Labeled, name: str) -> versions.Version:
    return versions.create(labeled.service, name, Request(), "ana")


def test_datumaro_reads_voc_within_a_pixel(
    export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    export("voc", images="copy")
    shapes = shapes_of(read_back("datumaro", "voc", tmp_path / "voc"), "street")
    car = next(shape for shape in shapes if shape["attributes"].get("color") == "red")
    assert car["label"] == "car"
    assert car["points"] == pytest.approx([10.25, -4.5, 60.25, 15.625], abs=1.01)


def test_supervision_reads_voc_within_a_pixel(
    export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    export("voc", images="copy")
    found = read_back("supervision_voc", tmp_path / "voc")
    assert "Fußgänger" in found["classes"]
    boxes = [shape["xyxy"] for shape in found["images"]["street.jpg"]]
    assert any(box_ == pytest.approx([10.25, -4.5, 60.25, 15.625], abs=1.01) for box_ in boxes)
    assert found["images"]["Street.JPG" if "Street.JPG" in found["images"] else "street.jpg"] is not None


def test_voc_lists_every_image_of_a_split(export: Export, tmp_path: Path) -> None:
    export("voc")
    listed = [
        line
        for split in ("train", "val")
        for line in (tmp_path / "voc" / "ImageSets" / "Main" / f"{split}.txt").read_text().splitlines()
    ]
    written = sorted(path.stem for path in (tmp_path / "voc" / "Annotations").glob("*.xml"))
    assert sorted(listed) == written


def test_datumaro_reads_the_images_of_cvat(
    filled: Labeled, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    format_ = find_format("cvat")
    assert format_ is not None
    out = tmp_path / "cvat"
    write_export(filled.service, whole_version(filled, "cvat"), format_, Options(images="copy"), str(out))
    items = read_back("datumaro", "cvat", out / "annotations.xml")
    shapes = shapes_of(items, "street")
    assert one(shapes, "RotatedBbox")["points"] == pytest.approx([130, 110, 60, 20, 28.65], abs=0.01)
    car = next(shape for shape in shapes if shape["attributes"].get("color") == "red")
    assert car["points"] == pytest.approx([10.25, -4.5, 60.25, 15.625], abs=0.01)
    assert sorted(shape["points"] for shape in shapes if shape["kind"] == "Polygon") == [
        [10, 200, 110, 200, 60, 290.5],
        [210, 200, 310, 200, 260, 290.5],
    ]
    assert one(shapes, "PolyLine")["points"] == [0, 0, 100.5, 50, 200, 50]
    assert one(shapes, "Points")["points"] == [320.5, 240]
    masks = {shape["label"]: shape["pixels"] for shape in shapes_of(items, "scene")}
    assert masks == {"pond": 15 * 15 - 5 * 5, "reed": 2 * 5 + 4 * 4}


def test_datumaro_reads_the_tracks_of_cvat(
    export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    export("cvat", images="copy")
    items = read_back("datumaro", "cvat", tmp_path / "cvat" / f"{VIDEO}.xml")
    seen = {
        (item["id"], shape["label"], tuple(shape["points"]))
        for item in items
        for shape in item["shapes"]
        if shape["attributes"]["outside"] == "False"
    }
    assert seen == {
        ("frame_000000", "car", (1.5, 2, 11.5, 7)),
        ("frame_000002", "car", (3.5, 2, 13.5, 7)),
        ("frame_000002", "bus", (-5, 0, 15, 15)),
    }


def test_a_track_is_marked_as_outside_where_it_has_gone(export: Export, tmp_path: Path) -> None:
    export("cvat")
    text = (tmp_path / "cvat" / f"{VIDEO}.xml").read_text()
    assert text.count('frame="1" outside="1"') == 1
    assert 'frame="3"' not in text


def test_an_ellipse_of_cvat_has_its_axes(export: Export, tmp_path: Path) -> None:
    export("cvat")
    assert (
        '<ellipse label="12" source="manual" occluded="0" cx="340" cy="100" rx="40" ry="20"'
        in (tmp_path / "cvat" / "annotations.xml").read_text()
    )


def test_datumaro_reads_mot(export: Export, tmp_path: Path, read_back: Callable[..., Any]) -> None:
    export("mot")
    items = read_back("datumaro", "mot_seq", tmp_path / "mot" / VIDEO)
    seen = {
        (int(item["id"]), shape["label"], tuple(shape["points"]))
        for item in items
        for shape in item["shapes"]
    }
    assert seen == {
        (1, "car", (1.5, 2, 11.5, 7)),
        (3, "car", (3.5, 2, 13.5, 7)),
        (3, "bus", (-5, 0, 15, 15)),
    }


def test_mot_has_nine_columns_sorted_by_frame_and_track(export: Export, tmp_path: Path) -> None:
    export("mot")
    rows = [line.split(",") for line in (tmp_path / "mot" / VIDEO / "gt" / "gt.txt").read_text().splitlines()]
    assert {len(row) for row in rows} == {9}
    order = [(int(row[0]), int(row[1])) for row in rows]
    assert order == sorted(order) == [(1, 1), (3, 1), (3, 2)]


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
