"""Masks as PNG files: a label mask has the pixels of its instances."""

from pathlib import Path

from PIL import Image

from tests.exports.conftest import Export
from tests.exports.kit import SEGMENTATION, pixels
from tests.exports.labeled import ring


def test_a_label_mask_has_the_pixels_of_its_instances(export: Export, tmp_path: Path) -> None:
    export("masks")
    folder = tmp_path / "masks" / SEGMENTATION
    assert ((pixels(folder / "pond.png") > 0) == (ring() == 1)).all()
    assert ((pixels(folder / "reed.png") > 0) == (ring() == 2)).all()
    assert not (folder / "empty.png").exists()


def test_the_index_image_has_one_value_for_each_index(export: Export, tmp_path: Path) -> None:
    export("masks")
    path = tmp_path / "masks" / SEGMENTATION / "index.png"
    with Image.open(path) as image:
        assert image.mode == "P"
    assert (pixels(path) == ring()).all()


def test_masks_without_pixels_are_counted(export: Export) -> None:
    left = [entry for entry in export("masks")["left_out"] if entry["type"] == "mask"]
    assert [(entry["count"], entry["tasks"]) for entry in left] == [(1, [SEGMENTATION])]
