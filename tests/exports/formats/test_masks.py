"""Masks, COCO panoptic, Label Studio, PandaSet, spaCy and CoNLL."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.exports.conftest import Export
from tests.exports.labeled import ring

SEGMENTATION, LIDAR, TEXT = (
    "65a000000000000000000010",
    "65a000000000000000000030",
    "65a000000000000000000040",
)


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.array(image)


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


def test_panoptic_segments_are_exactly_the_ids_of_the_pixels(export: Export, tmp_path: Path) -> None:
    export("coco-panoptic")
    content = json.loads((tmp_path / "coco-panoptic" / "panoptic.json").read_bytes())
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {}
    for annotation in content["annotations"]:
        rgb = pixels(tmp_path / "coco-panoptic" / "panoptic" / annotation["file_name"]).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in annotation["segments_info"]}
        for segment in annotation["segments_info"]:
            assert (ids == segment["id"]).sum() == segment["area"]
            found[names[segment["category_id"]]] = (segment["id"], segment["area"], segment["bbox"])
    assert found == {"pond": (1, 200, [5, 5, 15, 15]), "reed": (2, 26, [22, 2, 13, 26])}


def test_label_studio_accepts_every_annotation(
    export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    report = export("labelstudio")
    found = read_back("labelstudio", tmp_path / "labelstudio")
    assert all(found["valid"])
    assert len(found["regions"]) == report["written"]["annotations"]["total"]
    assert all(found["regions"])
    assert found["pixels"] == {"pond": 200, "reed": 26}


def test_label_studio_turns_a_box_about_its_corner(export: Export, tmp_path: Path) -> None:
    export("labelstudio")
    tasks = json.loads((tmp_path / "labelstudio" / "tasks.json").read_bytes())
    regions = [region for task in tasks for region in task["annotations"][0]["result"]]
    (region,) = (one for one in regions if one["meta"].get("uuid") == "u-rotated")
    value = region["value"]
    assert (value["width"] * 6.4, value["height"] * 4.8) == pytest.approx((60, 20))
    assert value["rotation"] == pytest.approx(28.6479, abs=1e-4)
    # Half of the box's diagonal from its corner, turned by half a radian, is its centre.
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    centre = turn @ np.array([30, 10]) + np.array([value["x"] * 6.4, value["y"] * 4.8])
    assert centre == pytest.approx([130, 110], abs=0.01)


def test_pandaset_has_a_row_for_each_cuboid(
    export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    export("pandaset")
    folder = tmp_path / "pandaset" / LIDAR / "annotations" / "cuboids"
    (row,) = read_back("pandas_parquet", folder / "00.parquet")
    assert row == json.loads((folder / "00.json").read_bytes())[0]
    assert (row["position.x"], row["dimensions.y"], row["yaw"], row["stationary"]) == (1.5, 4.5, 1.57, False)
    assert (row["label"], row["attributes.parked"]) == ("truck", "no")


def splits_of(folder: Path, suffix: str) -> list[Path]:
    return [folder / f"{split}.{suffix}" for split in ("train", "val")]


def test_spacy_reads_the_entities(export: Export, tmp_path: Path, read_back: Callable[..., Any]) -> None:
    export("spacy")
    documents = [one for path in splits_of(tmp_path / "spacy", "spacy") for one in read_back("spacy", path)]
    assert documents == [
        {"text": "Old Mill is run by Anna 😀.", "entities": [[0, 8, "place"], [19, 23, "person"]]}
    ]
    lines = [
        json.loads(line)
        for path in splits_of(tmp_path / "spacy", "jsonl")
        for line in path.read_text().splitlines()
    ]
    assert [(span["start"], span["end"], span["label"]) for span in lines[0]["spans"]] == [
        (0, 8, "place"),
        (19, 23, "person"),
    ]


def test_conll_tags_tokens(export: Export, tmp_path: Path) -> None:
    export("conll")
    text = "".join(path.read_text() for path in splits_of(tmp_path / "conll", "conll"))
    tokens = [line.split()[::3] for line in text.splitlines() if line]
    assert tokens[:2] == [["Old", "B-place"], ["Mill", "I-place"]]
    assert ["Anna", "B-person"] in tokens
    assert ["is", "O"] in tokens
