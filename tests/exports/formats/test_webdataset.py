"""WebDataset: every sample is read by the library."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.exports.conftest import Export


def test_webdataset_reads_every_sample(export: Export, tmp_path: Path, read_back: Callable[..., Any]) -> None:
    report = export("webdataset", images="copy")
    samples = [
        sample
        for split in ("train", "val")
        for sample in read_back("webdataset", tmp_path / "webdataset" / f"{split}-000000.tar")
    ]
    assert len(samples) == report["written"]["images"]
    assert all(len(sample["bytes"]) == 1 for sample in samples)
    by_name = {sample["json"]["file_name"]: sample["json"] for sample in samples}
    shapes = {shape["uuid"]: shape for shape in by_name["street.jpg"]["annotations"]}
    assert {"u-box", "u-shared", "u-cuboid"} <= shapes.keys()
    assert shapes["u-box"]["geometry"]["left"] == 10.25
    assert by_name["street.jpg"]["tasks"] == ["65a000000000000000000001", "65a000000000000000000002"]
