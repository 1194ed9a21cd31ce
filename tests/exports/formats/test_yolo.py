"""YOLO: the rules of Ultralytics' loader, and the files read back by supervision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.exports.conftest import Export

IMAGE_NAMES = ("bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm", "heic", "avif", "jp2")
NAMES = ("yolo-detect", "yolo-segment", "yolo-obb", "yolo-pose")


def labels(folder: Path) -> dict[str, list[list[float]]]:
    return {
        path.relative_to(folder / "labels").as_posix(): [
            [float(number) for number in line.split()] for line in path.read_text().splitlines()
        ]
        for path in sorted((folder / "labels").rglob("*.txt"))
    }


def data(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "data.yaml").read_text()))


def of(folder: Path, stem: str) -> list[list[float]]:
    (found,) = (rows for path, rows in labels(folder).items() if Path(path).stem == stem)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_files_keep_the_rules_of_the_loader(name: str, export: Export, tmp_path: Path) -> None:
    export(name, images="copy")
    folder = tmp_path / name
    names = data(folder)["names"]
    assert all(isinstance(label, str) for label in names)
    assert {"no", "12", "=1+1", "Fußgänger"} <= set(names)
    assert data(folder)["nc"] == len(names)
    assert {"train", "val", "test"} <= data(folder).keys()
    assert "path" not in data(folder)
    images = [path for path in (folder / "images").rglob("*") if path.is_file()]
    assert images
    for image in images:
        assert image.suffix[1:].lower() in IMAGE_NAMES
        assert Path(str(image.with_suffix(".txt")).replace("/images/", "/labels/")).is_file()
    for rows in labels(folder).values():
        widths = {len(row) for row in rows}
        if name == "yolo-detect":
            assert widths <= {5}
        elif name == "yolo-segment":
            assert all(width > 6 and width % 2 for width in widths)
        elif name == "yolo-obb":
            assert widths <= {9}
        else:
            assert widths <= {5 + 3 * data(folder)["kpt_shape"][0]}
        for row in rows:
            assert row[0] == int(row[0]) < len(names)
            coordinates = row[1:5] + [number for n, number in enumerate(row[5:]) if n % 3 != 2]
            assert all(0 <= number <= 1 for number in (coordinates if name == "yolo-pose" else row[1:]))


def test_a_box_is_clipped_and_reported(export: Export, tmp_path: Path) -> None:
    report = export("yolo-detect")
    names = data(tmp_path / "yolo-detect")["names"]
    centre_x, centre_y, width, height = next(
        row[1:] for row in of(tmp_path / "yolo-detect", "street") if names[int(row[0])] == "car"
    )
    assert width * 640 == pytest.approx(50, abs=0.02)
    assert height * 480 == pytest.approx(15.625, abs=0.02)
    assert centre_x * 640 == pytest.approx(35.25, abs=0.02)
    assert centre_y * 480 == pytest.approx(7.8125, abs=0.02)
    clipped = [entry for entry in report["changed"] if "moved to its edge" in entry["change"]]
    assert [entry["count"] for entry in clipped] == [3]
    outside = [entry for entry in report["left_out"] if entry["reason"] == "it lies outside of the image"]
    assert [entry["count"] for entry in outside] == [1]


def test_an_image_that_cannot_be_copied_is_left_out(export: Export, tmp_path: Path) -> None:
    report = export("yolo-detect", images="copy")
    left = [entry for entry in report["left_out"] if entry["reason"].startswith("the image cannot be copied")]
    assert {(entry["type"], entry["count"]) for entry in left} == {("image", 2), ("box", 2)}
    assert not list((tmp_path / "yolo-detect").rglob("measured*"))


def test_with_link_each_address_has_its_place(export: Export, tmp_path: Path) -> None:
    export("yolo-detect")
    lines = (tmp_path / "yolo-detect" / "image_addresses.tsv").read_text().splitlines()
    places = {line.split("\t")[0] for line in lines}
    assert {place.replace("images/", "labels/", 1).rpartition(".")[0] for place in places} == {
        f"labels/{path.rpartition('.')[0]}" for path in labels(tmp_path / "yolo-detect")
    }


def test_corners_of_a_rotated_box(export: Export, tmp_path: Path) -> None:
    export("yolo-obb")
    names = data(tmp_path / "yolo-obb")["names"]
    row = next(row for row in of(tmp_path / "yolo-obb", "street") if names[int(row[0])] == "Fußgänger")
    xs, ys = [x * 640 for x in row[1::2]], [y * 480 for y in row[2::2]]
    assert sum(xs) / 4 == pytest.approx(130, abs=0.02)
    assert sum(ys) / 4 == pytest.approx(110, abs=0.02)
    assert ((xs[1] - xs[0]) ** 2 + (ys[1] - ys[0]) ** 2) ** 0.5 == pytest.approx(60, abs=0.02)


@pytest.mark.parametrize("split", ["train", "val"])
def test_supervision_reads_boxes(
    split: str, export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    export("yolo-detect", images="copy")
    folder = tmp_path / "yolo-detect"
    found = read_back("supervision_yolo", folder, split, "no")
    assert found["classes"] == data(folder)["names"]
    ours = {Path(path).stem: rows for path, rows in labels(folder).items() if path.startswith(split)}
    assert {Path(name).stem: len(rows) for name, rows in found["images"].items()} == {
        stem: len(rows) for stem, rows in ours.items()
    }
    if "street.jpg" in found["images"]:
        boxes = [shape["xyxy"] for shape in found["images"]["street.jpg"]]
        assert any(box == pytest.approx([10.25, 0, 60.25, 15.625], abs=0.02) for box in boxes)


@pytest.mark.parametrize("split", ["train", "val"])
def test_supervision_reads_rotated_boxes(
    split: str, export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    export("yolo-obb", images="copy")
    found = read_back("supervision_yolo", tmp_path / "yolo-obb", split, "obb")
    ours = {
        Path(path).stem: rows
        for path, rows in labels(tmp_path / "yolo-obb").items()
        if path.startswith(split)
    }
    assert {Path(name).stem: len(rows) for name, rows in found["images"].items()} == {
        stem: len(rows) for stem, rows in ours.items()
    }
