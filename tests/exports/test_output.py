"""Where an export goes: foreign folders are refused, interrupted exports never look whole, and old ones are replaced."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import fsspec
import pytest

from exports.output import MANIFEST, STAGING, OutputRefused, open_output
from tests.exports.conftest import Export
from tests.exports.labeled import Labeled

ROOT = Path(__file__).parents[2]


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def is_whole(folder: Path) -> bool:
    """Whether export.json is there. If so every file that it lists has to be there, with its digest, and no other."""
    found = content(folder)
    if MANIFEST not in found:
        return False
    listed = json.loads(found[MANIFEST])["files"]
    for file in listed:
        assert hashlib.sha256(found[file["path"]]).hexdigest() == file["sha256"]
    others = {path for path in found if not path.startswith(f"{STAGING}/")}
    assert others == {MANIFEST, *(file["path"] for file in listed)}
    return True


@pytest.mark.parametrize("stranger", ["notes.txt", "labels/deep/notes.txt", "export.json"])
def test_a_folder_with_foreign_files_is_refused_and_left_as_it_was(
    stranger: str, export: Export, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    (folder / stranger).parent.mkdir(parents=True)
    (folder / stranger).write_text('{"files": []}')
    before = content(folder)
    with pytest.raises(OutputRefused):
        export("csv", folder)
    assert content(folder) == before


def test_a_foreign_file_next_to_an_export_is_refused(export: Export, tmp_path: Path) -> None:
    export("csv")
    (tmp_path / "csv" / "notes.txt").write_text("mine")
    with pytest.raises(OutputRefused, match=r"notes\.txt"):
        export("csv")
    (tmp_path / "csv" / "notes.txt").unlink()
    assert is_whole(tmp_path / "csv")


def test_a_foreign_zip_and_a_file_are_refused(export: Export, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "mine")
    (tmp_path / "file").write_text("mine")
    for name in ("other.zip", "file"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OutputRefused):
            export("csv", tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


def test_a_foreign_store_folder_is_refused(export: Export) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/foreign/notes.txt", b"mine")
    with pytest.raises(OutputRefused):
        export("csv", "memory://foreign")
    assert store.find("/foreign") == ["/foreign/notes.txt"]


def test_another_format_replaces_an_export(export: Export, tmp_path: Path) -> None:
    export("csv", tmp_path / "out")
    export("coco", tmp_path / "out", images="copy")
    export("scale", tmp_path / "out")
    assert set(content(tmp_path / "out")) == {MANIFEST, "tasks.jsonl"}
    assert is_whole(tmp_path / "out")


def test_an_export_that_does_not_finish_leaves_the_old_one(tmp_path: Path, export: Export) -> None:
    export("csv")
    with open_output(str(tmp_path / "csv")) as output:
        (output.stage / "half").write_text("half")
    assert is_whole(tmp_path / "csv")
    assert not (tmp_path / "csv" / STAGING).exists()


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_an_export_that_was_killed_while_files_were_moved_is_replaced(
    moved: int, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export("coco", tmp_path / "out")
    calls = 0
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += STAGING not in target.parts
        if calls > moved:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            export("csv", tmp_path / "out")
    assert not is_whole(tmp_path / "out")
    export("csv", tmp_path / "out")
    assert is_whole(tmp_path / "out")
    assert not (tmp_path / "out" / STAGING).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_a_kill_at_any_instant_never_leaves_half_an_export_that_looks_whole(
    suffix: str, filled: Labeled, export: Export, tmp_path: Path
) -> None:
    out = tmp_path / f"out{suffix}"
    settings = filled.service.settings
    command = [
        *(sys.executable, "-m", "tests.exports.export_once"),
        *(settings.database_url, settings.artifact_store, filled.files.host, str(out)),
    ]

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    export("csv", out)
    begun = time.monotonic()
    assert start().wait() == 0
    duration = time.monotonic() - begun
    chance = random.Random(13)
    for _ in range(20):
        process = start()
        time.sleep(chance.uniform(0, duration))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if suffix:
            with zipfile.ZipFile(out) as archive:
                assert archive.testzip() is None
        else:
            is_whole(out)
    assert start().wait() == 0
    export("yolo-detect", tmp_path / f"again{suffix}", images="copy")
    if suffix:
        assert out.read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    else:
        assert content(out) == content(tmp_path / "again")
