"""Parquet, CSV, Scale's own JSON lines, and the Croissant description: they hold everything."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from pipeline.datasets import versions
from pipeline.datasets.versions import Request, Version
from pipeline.sync.imports import import_file
from tests.exports.conftest import Export
from tests.exports.labeled import Labeled, fill


def test_parquet_has_typed_columns_and_every_annotation(
    export: Export, tmp_path: Path, version: Version, read_back: Callable[..., Any]
) -> None:
    export("parquet")
    rows = read_back("pandas_parquet", tmp_path / "parquet" / "annotations.parquet")
    assert len(rows) == version.counts["annotations"]["total"]
    by_uuid = {row["uuid"]: row for row in rows if row["uuid"] is not None}
    box = by_uuid["u-box"]
    assert (box["left"], box["top"], box["width"], box["height"]) == (10.25, -4.5, 50.0, 20.125)
    assert (box["response_number"], box["frame"]) == (1, None)
    assert json.loads(box["geometry"]) == {"left": 10.25, "top": -4.5, "width": 50, "height": 20.125}
    assert by_uuid["u-point"]["left"] is None
    assert by_uuid["t-2"]["frame"] == 2
    tasks = read_back("pandas_parquet", tmp_path / "parquet" / "tasks.parquet")
    assert {(row["status"], row["project"], row["batch"], row["environment"]) for row in tasks} == {
        ("completed", "street", "b1", "live")
    }


def test_parquet_and_csv_hold_the_same(export: Export, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    export("parquet")
    export("csv")
    for name in ("tasks", "annotations", "answers"):
        rows = parquet.read_table(tmp_path / "parquet" / f"{name}.parquet").to_pylist()
        with (tmp_path / "csv" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
        assert len(rows) == len(found)
        for ours, theirs in zip(rows, found, strict=True):
            for column, value in ours.items():
                text = "" if value is None else str(value)
                assert theirs[column] in (text, f"'{text}")


def test_a_cell_of_csv_is_never_a_formula(export: Export, tmp_path: Path) -> None:
    export("csv")
    for path in (tmp_path / "csv").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "@") or cell.startswith("-cmd")]
    assert "'=1+1" in (tmp_path / "csv" / "annotations.csv").read_text()


def test_import_reads_the_lines_back_to_the_same_rows(
    labeled: Labeled, tmp_path: Path, export: Export, filled: Labeled
) -> None:
    export("scale")
    labeled.files.content |= filled.files.content
    lines = (tmp_path / "scale" / "tasks.jsonl").read_bytes()
    (tmp_path / "here.jsonl").write_bytes(
        lines.replace(filled.files.host.encode(), labeled.files.host.encode())
    )
    with (tmp_path / "here.jsonl").open("rb") as file:
        for _ in import_file(labeled.service, file, "live"):
            labeled.run_jobs()
    again = versions.create(labeled.service, "again", Request(), "ana")
    fresh = tmp_path / "fresh"
    format_ = find_format("csv")
    assert format_ is not None
    write_export(labeled.service, again, format_, Options(), str(fresh))
    export("csv", of=versions.create(filled.service, "whole", Request(), "ana"))
    for name in ("annotations.csv", "answers.csv", "tasks.csv"):
        expected = (tmp_path / "csv" / name).read_text().replace(filled.files.host, labeled.files.host)
        assert (fresh / name).read_text() == expected


def test_both_databases_give_the_same_bytes(
    labeled: Labeled, export: Export, filled: Labeled, tmp_path: Path
) -> None:
    """The digests and the rows of a database filled in the same way, but for the addresses of its web server."""
    fill(labeled)
    version = versions.create(labeled.service, "all", Request(), "ana")
    whole = versions.create(filled.service, "same", Request(), "ana")
    assert version.counts == whole.counts
    assert version.classes == whole.classes


def test_croissant_describes_every_file(
    export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    report = export("csv", croissant=True)
    found = read_back("mlcroissant", tmp_path / "csv" / "croissant.json")
    assert found["errors"] == []
    assert found["records"]["annotations"] == report["written"]["annotations"]["total"]
    described = json.loads((tmp_path / "csv" / "croissant.json").read_bytes())["distribution"]
    assert {file["contentUrl"]: file["sha256"] for file in described} == {
        file["path"]: file["sha256"] for file in report["files"] if file["path"] != "croissant.json"
    }
