"""Pascal VOC, read back by datumaro and supervision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.exports.conftest import Export
from tests.exports.kit import shapes_of


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
