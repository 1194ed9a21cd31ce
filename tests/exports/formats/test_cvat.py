"""CVAT: images, tracks and ellipses, read back by datumaro."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from tests.exports.conftest import Export
from tests.exports.kit import VIDEO, one, shapes_of, whole_version
from tests.exports.labeled import Labeled


def test_datumaro_reads_the_images_of_cvat(
    filled: Labeled, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    format_ = find_format("cvat")
    assert format_ is not None
    out = tmp_path / "cvat"
    write_export(filled.service, whole_version(filled, "cvat"), format_, Options(images="copy"), str(out))
    items = read_back("datumaro", "cvat", out / "annotations.xml")
    shapes = shapes_of(items, "street")
    assert one(shapes, "RotatedBbox")["points"] == pytest.approx([130, 110, 60, 20, 28.65], abs=0.01)
    car = next(shape for shape in shapes if shape["attributes"].get("color") == "red")
    assert car["points"] == pytest.approx([10.25, -4.5, 60.25, 15.625], abs=0.01)
    assert sorted(shape["points"] for shape in shapes if shape["kind"] == "Polygon") == [
        [10, 200, 110, 200, 60, 290.5],
        [210, 200, 310, 200, 260, 290.5],
    ]
    assert one(shapes, "PolyLine")["points"] == [0, 0, 100.5, 50, 200, 50]
    assert one(shapes, "Points")["points"] == [320.5, 240]
    masks = {shape["label"]: shape["pixels"] for shape in shapes_of(items, "scene")}
    assert masks == {"pond": 15 * 15 - 5 * 5, "reed": 2 * 5 + 4 * 4}


def test_datumaro_reads_the_tracks_of_cvat(
    export: Export, tmp_path: Path, read_back: Callable[..., Any]
) -> None:
    export("cvat", images="copy")
    items = read_back("datumaro", "cvat", tmp_path / "cvat" / f"{VIDEO}.xml")
    seen = {
        (item["id"], shape["label"], tuple(shape["points"]))
        for item in items
        for shape in item["shapes"]
        if shape["attributes"]["outside"] == "False"
    }
    assert seen == {
        ("frame_000000", "car", (1.5, 2, 11.5, 7)),
        ("frame_000002", "car", (3.5, 2, 13.5, 7)),
        ("frame_000002", "bus", (-5, 0, 15, 15)),
    }


def test_a_track_is_marked_as_outside_where_it_has_gone(export: Export, tmp_path: Path) -> None:
    export("cvat")
    text = (tmp_path / "cvat" / f"{VIDEO}.xml").read_text()
    assert text.count('frame="1" outside="1"') == 1
    assert 'frame="3"' not in text


def test_an_ellipse_of_cvat_has_its_axes(export: Export, tmp_path: Path) -> None:
    export("cvat")
    assert (
        '<ellipse label="12" source="manual" occluded="0" cx="340" cy="100" rx="40" ry="20"'
        in (tmp_path / "cvat" / "annotations.xml").read_text()
    )
