"""COCO: every geometry that it holds, read back by pycocotools and supervision."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.exports.conftest import Export
from tests.exports.labeled import ring


@pytest.fixture
def coco(export: Export, tmp_path: Path) -> dict[str, Any]:
    export("coco", images="copy")
    return dict(json.loads((tmp_path / "coco" / "annotations.json").read_bytes()))


def by_uuid(coco: dict[str, Any]) -> dict[str, Any]:
    return {shape["uuid"]: shape for shape in coco["annotations"] if "uuid" in shape}


def test_a_box_is_as_posted_also_outside_of_the_image(coco: dict[str, Any]) -> None:
    shape = by_uuid(coco)["u-box"]
    assert shape["bbox"] == [10.25, -4.5, 50, 20.125]
    assert shape["attributes"] == {"color": "red", "n": 2}
    assert shape["iscrowd"] == 0


def test_a_rotated_box_is_its_four_corners(coco: dict[str, Any]) -> None:
    shape = by_uuid(coco)["u-rotated"]
    points = np.array(shape["segmentation"][0]).reshape(-1, 2)
    centre, cosine, sine = np.array([130, 110]), np.cos(0.5), np.sin(0.5)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    corners = np.array([[-30, -10], [30, -10], [30, 10], [-30, 10]])
    assert np.allclose(points, corners @ turn.T + centre, atol=0.005)
    assert shape["rotation"] == 0.5


def test_pieces_of_one_uuid_are_one_annotation(coco: dict[str, Any]) -> None:
    shape = by_uuid(coco)["u-pieces"]
    assert shape["segmentation"] == [[10, 200, 110, 200, 60, 290.5], [210, 200, 310, 200, 260, 290.5]]
    assert shape["area"] == 2 * 100 * 90.5 / 2
    assert shape["bbox"] == [10, 200, 300, 90.5]


def test_lines_and_points_are_keypoints(coco: dict[str, Any]) -> None:
    shapes = by_uuid(coco)
    assert shapes["u-line"]["keypoints"] == [0, 0, 2, 100.5, 50, 2, 200, 50, 2]
    assert shapes["u-line"]["num_keypoints"] == 3
    assert shapes["u-point"]["keypoints"] == [320.5, 240, 2]


def test_an_ellipse_keeps_its_extent(coco: dict[str, Any]) -> None:
    points = np.array(by_uuid(coco)["u-ellipse"]["segmentation"][0]).reshape(-1, 2)
    assert len(points) >= 8
    assert np.allclose(points.min(axis=0), [300, 80], atol=1.5)
    assert np.allclose(points.max(axis=0), [380, 120], atol=1.5)


def test_a_mask_with_a_hole_is_its_pixels(coco: dict[str, Any]) -> None:
    names = {category["id"]: category["name"] for category in coco["categories"]}
    masks = [shape for shape in coco["annotations"] if isinstance(shape["segmentation"], dict)]
    assert sorted(names[shape["category_id"]] for shape in masks) == ["pond", "reed"]
    for shape in masks:
        rle = {**shape["segmentation"], "counts": shape["segmentation"]["counts"].encode()}
        expected = ring() == (1 if names[shape["category_id"]] == "pond" else 2)
        assert (coco_mask.decode(rle).astype(bool) == expected).all()
        assert shape["area"] == expected.sum()


def test_an_image_of_two_tasks_is_one_image(coco: dict[str, Any]) -> None:
    shapes = by_uuid(coco)
    assert shapes["u-box"]["image_id"] == shapes["u-shared"]["image_id"]
    assert len({image["id"] for image in coco["images"]}) == len(coco["images"])


def test_an_image_without_annotations_is_there(coco: dict[str, Any]) -> None:
    used = {shape["image_id"] for shape in coco["annotations"]}
    assert sorted(image["width"] for image in coco["images"] if image["id"] not in used) == [160, 320]


def test_sizes_are_those_of_the_image_as_shown(coco: dict[str, Any]) -> None:
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in coco["images"]}
    assert sizes["turned.jpg"] == (200, 300)
    assert sizes["measured.jpg"] == (64, 48)
    assert sizes["street.jpg"] == (640, 480)


def test_an_image_of_unknown_size_is_left_out_with_its_reason(export: Export) -> None:
    report = export("coco")
    left = {(entry["reason"], entry["type"]): entry for entry in report["left_out"]}
    entry = left["the size of the image is not known", "box"]
    assert (entry["count"], entry["tasks"]) == (1, ["65a000000000000000000006"])
    assert ("the format holds no cuboid annotations", "cuboid") in left
    assert ("it has no label", "box") in left
    assert ("the mask has no pixels", "mask") in left


def test_with_link_an_image_has_its_address(export: Export, tmp_path: Path) -> None:
    export("coco")
    content = json.loads((tmp_path / "coco" / "annotations.json").read_bytes())
    assert all(image["coco_url"].startswith("http://127.0.0.1") for image in content["images"])
    assert not (tmp_path / "coco" / "images").exists()


def test_copied_images_are_the_bytes_as_they_came(export: Export, tmp_path: Path, filled: Any) -> None:
    export("coco", images="copy")
    copied = (tmp_path / "coco" / "images" / "street.jpg").read_bytes()
    assert copied == filled.files.content["/a/street.jpg"]


def test_the_files_of_the_splits_share_ids_and_names(export: Export, tmp_path: Path) -> None:
    report = export("coco")
    whole, train, val = (
        json.loads((tmp_path / "coco" / name).read_bytes())
        for name in ("annotations.json", "annotations_train.json", "annotations_val.json")
    )
    for key in ("images", "annotations"):
        assert sorted(train[key] + val[key], key=lambda one: one["id"]) == sorted(
            whole[key], key=lambda one: one["id"]
        )
    assert whole["categories"] == train["categories"] == val["categories"]
    assert [category["id"] for category in whole["categories"]] == list(range(1, len(report["classes"]) + 1))


def test_pycocotools_reads_it(export: Export, tmp_path: Path, read_back: Callable[..., Any]) -> None:
    export("coco", images="copy")
    found = read_back("pycocotools", tmp_path / "coco" / "annotations.json")
    assert found["shapes"]["u-box"]["bbox"] == [10.25, -4.5, 50, 20.125]
    assert found["shapes"]["u-box"]["category"] == "car"
    assert abs(found["shapes"]["u-pieces"]["pixels"] - 9050) < 300  # rasterisers differ along the edges
    assert "Straße 1, __x__.png" in found["images"]


def test_supervision_reads_it(export: Export, tmp_path: Path, read_back: Callable[..., Any]) -> None:
    export("coco", images="copy")
    # supervision opens every image: those that were not fetched are not in this file.
    path = tmp_path / "coco" / "annotations.json"
    content = json.loads(path.read_bytes())
    content["images"] = [image for image in content["images"] if "coco_url" not in image]
    known = {image["id"] for image in content["images"]}
    content["annotations"] = [shape for shape in content["annotations"] if shape["image_id"] in known]
    path.write_text(json.dumps(content))
    found = read_back("supervision_coco", tmp_path / "coco" / "images", path)
    boxes = [shape["xyxy"] for shape in found["images"]["street.jpg"] if shape["class"] == "car"]
    assert [10.25, -4.5, 60.25, 15.625] in boxes
