"""`datasets …` and `export`: what programs read, exit codes, and one sentence for what cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.app.commands.conftest import Deliver, Run

SIZE = {"width": 640, "height": 480}


@pytest.fixture
def boxes(deliver: Deliver) -> None:
    deliver("annotation/accepted", metadata=SIZE)
    deliver("imageannotation/every_shape", metadata=SIZE)


def as_json(weighbridge: Run, *command: str) -> Any:
    done = weighbridge(*command, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_version_is_created_shown_compared_and_verified(weighbridge: Run, boxes: None) -> None:
    created = as_json(weighbridge, "datasets", "create", "street", "--split", "train=0.8,val=0.1,test=0.1")
    shown = as_json(weighbridge, "datasets", "show", "street")
    assert shown == created
    assert (shown["name"], shown["version"], shown["tasks"]) == ("street", 1, 2)
    assert list(shown["splits"]) == ["train", "val", "test"]
    then = ("--as-of", shown["as_of"], "--split", "train=0.8,val=0.1,test=0.1")
    assert as_json(weighbridge, "datasets", "create", "then", *then)["digest"] == shown["digest"]
    assert shown["classes"] == sorted(shown["classes"])
    assert shown["annotations"]["by_label"].keys() == set(shown["classes"])
    assert as_json(weighbridge, "datasets", "create", "street", "--type", "annotation")["version"] == 2
    found = as_json(weighbridge, "datasets", "diff", "street@1", "street@2")
    assert len(found["tasks"]["removed"]) == 1
    assert found["boxes"]["removed"]
    listed = as_json(weighbridge, "datasets", "list")
    assert [row["version"] for row in listed if row["name"] == "street"] == [1, 2]
    assert as_json(weighbridge, "datasets", "verify", "street@1")["problems"] == []
    assert weighbridge("datasets", "delete", "street@1").exit_code == 0
    assert weighbridge("datasets", "show", "street@1").exit_code == 1


@pytest.mark.parametrize(
    "command",
    [
        "datasets create Street",
        "datasets create street --split train=0.8",
        "datasets create street --split-by colour",
        "datasets create street --as-of yesterday-ish",
        "datasets create street --as-of 2100-01-01",
        "datasets create street --since nonsense",
        "datasets show nothing",
        "datasets show street@x",
        "datasets diff nothing@1 nothing@2",
        "datasets verify nothing",
        "datasets delete nothing",
        "export nothing out",
        "export csv out --dataset nothing",
        "export csv out --dataset street --type annotation",
        "export csv out --split train=2",
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    command: str, weighbridge: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = weighbridge(*command.split())
    assert done.exit_code != 0
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stderr.strip().endswith("..")
    assert not (tmp_path / "out").exists()


def test_export_writes_what_it_says(weighbridge: Run, boxes: None, tmp_path: Path) -> None:
    weighbridge("datasets", "create", "street")
    (tmp_path / "classes.txt").write_text("tractor\nsheep\n")
    done = weighbridge(
        *("export", "coco", str(tmp_path / "out"), "--dataset", "street"),
        *("--classes", str(tmp_path / "classes.txt")),
    )
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "annotations.json").read_bytes())
    assert [category["name"] for category in content["categories"]] == ["tractor", "sheep"]
    report = json.loads((tmp_path / "out" / "export.json").read_bytes())
    assert "its label is not among the classes" in {entry["reason"] for entry in report["left_out"]}


def test_a_foreign_folder_is_refused(weighbridge: Run, boxes: None, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = weighbridge("export", "csv", str(tmp_path))
    assert done.exit_code == 1
    assert "notes.txt" in done.stderr


def test_formats_are_listed(weighbridge: Run) -> None:
    done = weighbridge("export", "--formats")
    assert done.exit_code == 0
    assert "yolo-obb" in done.stdout
    assert "rotated box" in done.stdout
