"""Label Studio: every annotation is accepted by its own validation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.exports.conftest import Export


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
