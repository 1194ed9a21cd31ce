"""MOT: nine columns by frame and track, read back by datumaro."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.exports.conftest import Export
from tests.exports.kit import VIDEO


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
