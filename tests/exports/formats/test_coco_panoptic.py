"""COCO panoptic: segments are the ids of the pixels."""

import json
from pathlib import Path

import numpy as np

from tests.exports.conftest import Export
from tests.exports.kit import pixels


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
