"""PandaSet: a row for each cuboid of a frame."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.exports.conftest import Export
from tests.exports.kit import LIDAR


def test_pandaset_has_a_row_for_each_cuboid(
    export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    export("pandaset")
    folder = tmp_path / "pandaset" / LIDAR / "annotations" / "cuboids"
    (row,) = read_back("pandas_parquet", folder / "00.parquet")
    assert row == json.loads((folder / "00.json").read_bytes())[0]
    assert (row["position.x"], row["dimensions.y"], row["yaw"], row["stationary"]) == (1.5, 4.5, 1.57, False)
    assert (row["label"], row["attributes.parked"]) == ("truck", "no")
