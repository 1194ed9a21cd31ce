"""Where an export goes: foreign folders are refused, interrupted exports never look whole, and old ones are replaced."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import fsspec
import pytest

from exports.output import MANIFEST, STAGING, OutputRefused, open_output
from pipeline.datasets.versions import Version
from tests.exports.conftest import Export
from tests.exports.labeled import Labeled
from tests.servers import free_port

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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "out.zip"])
@pytest.mark.parametrize("keys", [{}, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}])
def test_a_store_that_refuses_the_export_is_an_error_in_a_sentence(
    keys: dict[str, str], name: str, filled: Labeled, version: Version
) -> None:
    """Without credentials, and at an endpoint that does not answer."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": filled.service.settings.database_url,
        "SECRET_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        **keys,
    }
    command = [sys.executable, "-m", "flask", "export", "csv", f"s3://bucket/{name}", "--dataset", "all"]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    said = "Unable to locate credentials" if not keys else "Could not connect to the endpoint"
    assert run.returncode == 1
    assert run.stderr.startswith(f"Error: s3://bucket/{name} cannot be used: {said}")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("address", ["nowhere://bucket/out", "gs://bucket/out.zip"])
def test_a_store_without_its_package_is_refused_in_a_sentence(address: str) -> None:
    with pytest.raises(OutputRefused, match=f"^{address} cannot be opened: [^\n]+$"):
        open_output(address)


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


class Exporter:
    """Exports to OUT in processes that can be killed."""

    def __init__(self, filled: Labeled, out: Path) -> None:
        settings = filled.service.settings
        command = [
            *(sys.executable, "-m", "tests.exports.export_once"),
            *(settings.database_url, settings.artifact_store, filled.files.host, str(out)),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def begin(self) -> int:
        """Begin an export and return the id of its process."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._number()

    def wait(self) -> int:
        """Return how the export's process ended: 0, or the negative number of a signal."""
        return self._number()

    def _number(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def zip_is_whole(path: Path) -> bool:
    """Whether the zip is there. If so it has to hold every file that its export.json lists, and no other."""
    if not path.exists():
        return False
    with zipfile.ZipFile(path) as archive:
        listed = json.loads(archive.read(MANIFEST))["files"]
        assert set(archive.namelist()) == {MANIFEST, *(file["path"] for file in listed)}
        for file in listed:
            assert hashlib.sha256(archive.read(file["path"])).hexdigest() == file["sha256"]
    return True


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["out", "out.zip"])
@pytest.mark.parametrize("is_replaced", [False, True], ids=["new", "replaces another"])
def test_a_kill_at_any_instant_never_leaves_half_an_export_that_looks_whole(
    is_replaced: bool, name: str, filled: Labeled, export: Export, tmp_path: Path
) -> None:
    out, again = tmp_path / name, tmp_path / f"again-{name}"
    looks_whole = zip_is_whole if out.suffix else is_whole
    exporter = Exporter(filled, out)
    begun = time.monotonic()
    exporter.begin()
    assert exporter.wait() == 0
    duration = time.monotonic() - begun
    chance, killed = random.Random(13), 0
    for _ in range(20):
        if is_replaced:
            export("csv", out)
        elif looks_whole(out):
            shutil.rmtree(out) if out.is_dir() else out.unlink()
        process = exporter.begin()
        time.sleep(chance.uniform(0, duration))
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.kill(process, signal.SIGKILL)
        killed += exporter.wait() != 0
        looks_whole(out)
    assert killed
    exporter.begin()
    assert exporter.wait() == 0
    exporter.close()
    export("yolo-detect", again, images="copy")
    if out.suffix:
        assert out.read_bytes() == again.read_bytes()
    else:
        assert content(out) == content(again)
