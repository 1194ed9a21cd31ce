"""Hugging Face: the folder loads offline, with class names, splits and coordinates."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.datasets.versions import Version
from tests.exports.conftest import Export


@pytest.mark.parametrize("images", ["link", "copy"])
def test_load_dataset_reads_every_row(
    images: str, export: Export, tmp_path: Path, version: Version, read_back: Callable[..., Any]
) -> None:
    export("huggingface", images=images)
    found = read_back("load_dataset", tmp_path / "huggingface")
    assert {split: len(rows) for split, rows in found.items()} == version.counts["splits"]
    rows = {row["task_id"]: row for split in found.values() for row in split}
    street = rows["65a000000000000000000001"]
    by_uuid = {shape["uuid"]: shape for shape in street["objects"]}
    assert by_uuid["u-box"]["bbox"] == [10.25, -4.5, 50, 20.125]
    assert by_uuid["u-rotated"]["type"] == "box"
    assert json.loads(by_uuid["u-box"]["attributes"]) == {"color": "red", "n": 2}
    names = [shape["label"] for shape in street["objects"]]
    assert street["categories"] == names
    if images == "copy":
        assert street["image"] == [640, 480]
    else:
        assert street["image"].endswith("/a/street.jpg")
    assert len(rows["65a000000000000000000020"]["objects"]) == 3
    assert rows["65a000000000000000000040"]["text"].startswith("Old Mill")


def test_the_card_names_splits_and_features(export: Export, tmp_path: Path) -> None:
    export("huggingface")
    text = (tmp_path / "huggingface" / "README.md").read_text()
    assert text.startswith("---\n")
    card = yaml.safe_load(text.split("---\n")[1])
    assert [file["split"] for file in card["configs"][0]["data_files"]] == ["train", "val"]
    assert "features" in card["dataset_info"]
    assert sorted(path.name for path in (tmp_path / "huggingface" / "data").iterdir()) == [
        "train-00000-of-00001.parquet",
        "val-00000-of-00001.parquet",
    ]
