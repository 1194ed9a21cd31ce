"""What holds for every format: nothing is lost silently, names are safe, and the same export is the same bytes."""

import hashlib
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest

from exports.formats import FORMATS
from exports.output import MANIFEST
from pipeline.datasets.versions import Version
from tests.exports.conftest import Export

NAMES = [format_.name for format_ in FORMATS]
LOSSLESS = ("scale", "parquet", "csv", "huggingface")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_and_left_out_is_the_selection(name: str, export: Export, version: Version) -> None:
    report = export(name)
    found = Counter(report["written"]["annotations"]["by_type"])
    for entry in report["left_out"]:
        if entry["type"] not in ("task", "image"):
            found[entry["type"]] += entry["count"]
            assert entry["tasks"]
    assert dict(found) == version.counts["annotations"]["by_type"]
    assert report["written"]["annotations"]["total"] == sum(
        report["written"]["annotations"]["by_type"].values()
    )
    if name in LOSSLESS:
        assert report["left_out"] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("images", ["link", "copy"])
def test_two_exports_are_the_same_bytes(name: str, images: str, export: Export, tmp_path: Path) -> None:
    first = export(name, tmp_path / "first", images=images, croissant=True)
    again = export(name, tmp_path / "second", images=images, croissant=True)
    assert first == again
    assert files_of(tmp_path / "first") == files_of(tmp_path / "second")
    assert json.loads((tmp_path / "first" / MANIFEST).read_bytes()) == first


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_listed_with_its_digest(name: str, export: Export, tmp_path: Path) -> None:
    report = export(name, images="copy")
    found = files_of(tmp_path / name)
    del found[MANIFEST]
    described = {
        path: {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in found.items()
    }
    assert {entry["path"]: entry for entry in report["files"]} == described


@pytest.mark.parametrize("name", NAMES)
def test_a_zip_holds_the_same_files(name: str, export: Export, tmp_path: Path) -> None:
    export(name, images="copy")
    export(name, tmp_path / "one.zip", images="copy")
    export(name, tmp_path / "two.zip", images="copy")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert {path: archive.read(path) for path in archive.namelist()} == files_of(tmp_path / name)
        assert archive.namelist()[-1] == MANIFEST


def test_an_fsspec_address_holds_the_same_files(export: Export, tmp_path: Path) -> None:
    export("coco", images="copy")
    export("coco", "memory://bucket/coco", images="copy")
    export("coco", "memory://bucket/coco", images="copy")
    store = fsspec.filesystem("memory")
    found = {path.removeprefix("/bucket/coco/"): store.cat_file(path) for path in store.find("/bucket/coco")}
    assert found == files_of(tmp_path / "coco")
    export("coco", "memory://bucket/coco.zip", images="copy")
    export("coco", tmp_path / "coco.zip", images="copy")
    assert store.cat_file("/bucket/coco.zip") == (tmp_path / "coco.zip").read_bytes()


DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def unsafe(path: str) -> list[str]:
    return [
        part
        for part in path.split("/")
        if part in ("", ".", "..")
        or re.search(r'[<>:"\\|?*\x00-\x1f]', part)
        or DEVICE.fullmatch(part)
        or part[-1] in ". "
        or len(part.encode()) > 255
    ]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_safe_on_every_file_system(name: str, export: Export, tmp_path: Path) -> None:
    export(name, images="copy")
    paths = list(files_of(tmp_path / name))
    assert [path for path in paths if unsafe(path)] == []
    assert len({path.casefold() for path in paths}) == len(paths)


@pytest.mark.parametrize("name", NAMES)
def test_export_json_holds_no_time_and_no_place(name: str, export: Export, tmp_path: Path) -> None:
    export(name)
    text = (tmp_path / name / MANIFEST).read_text()
    assert str(tmp_path) not in text
    assert not re.search(r"\d{4}-\d\d-\d\dT", text)


def test_the_dataset_and_the_options_stand_in_export_json(export: Export, version: Version) -> None:
    report: dict[str, Any] = export("csv")
    assert report["dataset"] == "all@1"
    assert report["digest"] == version.digest
    assert report["options"]["images"] == "link"
    assert report["format"] == "csv"
