"""Where an export goes: a folder, a .zip file or an fsspec address. Whole exports only: export.json comes last.

Files are written to a staging folder first, then moved. Whatever is killed at whatever instant: OUT has no export.json,
or it has all the files that its export.json lists.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import orjson

MANIFEST = "export.json"
STAGING = "export.partial"
"""In a folder: the files of an export that is being written or was interrupted. A person may delete it."""
PREVIOUS = "previous.json"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
CHUNK_BYTES = 1024 * 1024
PRODUCT = "weighbridge"


class OutputRefused(Exception):
    """Raised when OUT cannot take the export. args[0] says why and what to do; nothing in OUT was changed."""


class OutputFailed(Exception):
    """Raised when the store behind OUT refuses or does not answer. args[0] says why, in a sentence."""


class Output:
    """A place for one export. `with output: … output.stage …; output.finish(manifest)`."""

    restarts = False
    """Whether the rest of an interrupted export was found, which this one replaces."""
    stage: Path
    """The folder that formats write to."""

    @property
    def work(self) -> Path:
        """Return a folder for files that are no part of the export."""
        return self.stage.parent / "work"

    def __enter__(self) -> Output:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError

    def finish(self, manifest: bytes) -> None:
        """Move everything to its place, the manifest last."""
        raise NotImplementedError


def open_output(address: str) -> Output:
    """Return the output at `address`. Raises OutputRefused where something else is there; a store may raise OutputFailed."""
    if "://" in address:
        return RemoteZip(address) if address.endswith(".zip") else RemoteFolder(address)
    path = Path(address).absolute()
    return ZipFile(path) if path.suffix == ".zip" and not path.is_dir() else Folder(path)


def listed(manifest: bytes | None) -> set[str] | None:
    """Return the paths that an export.json of this product lists, itself included; None where it is none."""
    try:
        content = orjson.loads(manifest or b"")
        if content["exporter"]["name"] != PRODUCT:
            return None
        return {MANIFEST, *(file["path"] for file in content["files"])}
    except (ValueError, KeyError, TypeError):
        return None


def files_under(folder: Path) -> list[str]:
    """Return the paths of the files, relative to `folder`, with slashes, in the order of their code points."""
    found = []
    for root, folders, names in os.walk(folder):
        relative = Path(root).relative_to(folder)
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        found += [(relative / name).as_posix() for name in (*names, *links)]
    return sorted(found)


def describe(folder: Path) -> list[dict[str, Any]]:
    """Return {path, size, sha256} of each file."""
    described = []
    for path in files_under(folder):
        digest = hashlib.sha256()
        with (folder / path).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
            size = file.tell()
        described.append({"path": path, "size": size, "sha256": digest.hexdigest()})
    return described


def foreign(paths: Iterable[str], *ours: set[str] | None) -> list[str]:
    """Return the paths that are in none of the sets `ours`, sorted."""
    known = set[str]().union(*(some for some in ours if some is not None))
    return sorted(path for path in paths if path not in known)


def refuse(address: str, strangers: list[str]) -> None:
    """Raise OutputRefused, naming the first files at `address` that are not part of an export."""
    shown = ", ".join(strangers[:3]) + (" …" if len(strangers) > 3 else "")
    raise OutputRefused(
        f"{address} holds files that are not part of an export: {shown}. Name a new or an empty folder."
    )


class Folder(Output):
    """A local folder. Files are staged inside it and moved into place at the end, the manifest last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._staging = path / STAGING
        self.stage = self._staging / "files"

    def __enter__(self) -> Folder:
        if self._path.exists() and not self._path.is_dir():
            raise OutputRefused(f"{self._path} is a file. Name a new or an empty folder, or a .zip file.")
        self._known = self._listed(MANIFEST)
        interrupted = (self._listed(f"{STAGING}/{MANIFEST}") or set()) | (
            self._listed(f"{STAGING}/{PREVIOUS}") or set()
        )
        inside = [path for path in files_under(self._path) if not path.startswith(f"{STAGING}/")]
        if strangers := foreign(inside, self._known, interrupted):
            refuse(str(self._path), strangers)
        self.restarts = self._staging.exists()
        if self._known is None:  # it was interrupted while files were moved: the lists go last
            self._delete(interrupted)
        shutil.rmtree(self._staging, ignore_errors=True)
        self.stage.mkdir(parents=True)
        self.work.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        if not (
            self._staging / MANIFEST
        ).exists():  # else files are moved: the next export needs the list of them
            shutil.rmtree(self._staging, ignore_errors=True)
            if not any(self._path.iterdir()):
                self._path.rmdir()

    def finish(self, manifest: bytes) -> None:
        """Remove the former export, move the staged files into place and write the manifest last, each step synced to disk."""
        write_synced(self._staging / MANIFEST, manifest)
        if self._known is not None:
            write_synced(self._staging / PREVIOUS, (self._path / MANIFEST).read_bytes())
            self._delete({MANIFEST})
            self._delete(self._known - {MANIFEST})
        for path in files_under(self.stage):
            target = self._path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self.stage / path).replace(target)
        (self._staging / MANIFEST).replace(self._path / MANIFEST)
        shutil.rmtree(self._staging)

    def _delete(self, paths: set[str]) -> None:
        folders = set[PurePosixPath]()
        for path in sorted(paths):
            (self._path / path).unlink(missing_ok=True)
            folders.update(PurePosixPath(path).parents)
        for folder in sorted(folders, reverse=True):
            if (
                str(folder) != "."
                and (self._path / folder).is_dir()
                and not any((self._path / folder).iterdir())
            ):
                (self._path / folder).rmdir()

    def _listed(self, name: str) -> set[str] | None:
        path = self._path / name
        return listed(path.read_bytes()) if path.is_file() else None


def write_synced(path: Path, content: bytes) -> None:
    """Write a small file through to the disk, under its name only once it is whole."""
    partial = path.with_name(f"{path.name}.tmp")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class ZipFile(Output):
    """A local zip. Files are staged in a folder next to it, so that one rename completes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._work = path.with_name(f"{path.name}.partial")
        self.stage = self._work / "files"

    def __enter__(self) -> ZipFile:
        if self._path.exists():
            refuse_unless_export(self._path, str(self._path))
        if self._work.exists():
            if strangers := sorted(
                {path.name for path in self._work.iterdir()} - {"files", "work", "export.zip"}
            ):
                refuse(str(self._work), strangers)
            self.restarts = True
            shutil.rmtree(self._work)
        self.stage.mkdir(parents=True)
        self.work.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._work, ignore_errors=True)

    def finish(self, manifest: bytes) -> None:
        """Pack the staged files and replace the zip atomically."""
        packed = self._work / "export.zip"
        pack(self.stage, manifest, packed)
        with packed.open("rb") as file:
            os.fsync(file.fileno())
        packed.replace(self._path)


def pack(folder: Path, manifest: bytes, target: Path) -> None:
    """Return the files of `folder` as a zip, export.json last. Stored, not deflated: zlib's bytes differ between its builds."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in files_under(folder):
            with (
                archive.open(_entry(path), "w", force_zip64=True) as entry,
                (folder / path).open("rb") as file,
            ):
                shutil.copyfileobj(file, entry, CHUNK_BYTES)
        with archive.open(_entry(MANIFEST), "w", force_zip64=True) as entry:
            entry.write(manifest)


def _entry(path: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, ZIP_TIME)
    info.create_system = 3  # Unix, also where this runs on Windows
    info.external_attr = 0o100644 << 16
    return info


def refuse_unless_export(file: Any, address: str) -> None:
    """Raise OutputRefused unless the zip is an export of this product."""
    try:
        with zipfile.ZipFile(file) as archive:
            if listed(archive.read(MANIFEST)) == set(archive.namelist()):
                return
    except (zipfile.BadZipFile, KeyError, OSError):
        pass
    raise OutputRefused(f"{address} is there already and is not an export. Name another file, or delete it.")


class RemoteFolder(Output):
    """An fsspec address. Stores have no rename, so the list of what is being uploaded goes first and export.json last."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self._files, self._root = connect(self._address)
        self._local = tempfile.TemporaryDirectory(prefix="weighbridge-export-")
        self.stage = Path(self._local.name) / "files"

    def __enter__(self) -> RemoteFolder:
        with store_errors(self._address):
            self._look()
        self.stage.mkdir()
        self.work.mkdir()
        return self

    def _look(self) -> None:
        """Read what is there. Raises OutputRefused where that is no export."""
        self._known = listed(self._read(MANIFEST))
        moving = listed(self._read(f"{STAGING}.json"))
        root = self._root.rstrip("/") + "/"
        found = self._files.find(self._root) if self._files.exists(self._root) else []
        inside = ["/" + path.lstrip("/") for path in found]
        relative = [path.removeprefix("/" + root.lstrip("/")) for path in inside]
        if strangers := foreign(relative, self._known, moving, {f"{STAGING}.json"}):
            refuse(self._address, strangers)
        self.restarts = moving is not None
        self._present = set(relative)

    def __exit__(self, *_: object) -> None:
        self._local.cleanup()

    def finish(self, manifest: bytes) -> None:
        """Remove what the former export had more, upload the staged files and write the manifest last."""
        with store_errors(self._address):
            self._upload(manifest)

    def _upload(self, manifest: bytes) -> None:
        files = files_under(self.stage)
        both = (self._present | set(files)) - {MANIFEST, f"{STAGING}.json"}
        self._write(f"{STAGING}.json", marker(both))
        self._remove(MANIFEST)
        for path in sorted(self._present - set(files) - {MANIFEST, f"{STAGING}.json"}):
            self._remove(path)
        for path in files:
            self._files.makedirs(self._files._parent(self._place(path)), exist_ok=True)
            self._files.put_file(str(self.stage / path), self._place(path))
        self._write(MANIFEST, manifest)
        self._remove(f"{STAGING}.json")

    def _place(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def _read(self, path: str) -> bytes | None:
        try:
            found: bytes = self._files.cat_file(self._place(path))
            return found
        except FileNotFoundError:
            return None

    def _write(self, path: str, content: bytes) -> None:
        self._files.makedirs(self._files._parent(self._place(path)), exist_ok=True)
        self._files.pipe_file(self._place(path), content)

    def _remove(self, path: str) -> None:
        if self._files.exists(self._place(path)):
            self._files.rm_file(self._place(path))


class RemoteZip(Output):
    """A zip at an fsspec address. It is packed locally and uploaded as one file."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._files, self._place = connect(address)
        self._local = tempfile.TemporaryDirectory(prefix="weighbridge-export-")
        self.stage = Path(self._local.name) / "files"

    def __enter__(self) -> RemoteZip:
        with store_errors(self._address):
            if self._files.exists(self._place):
                with self._files.open(self._place, "rb") as file:
                    refuse_unless_export(file, self._address)
        self.stage.mkdir()
        self.work.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self._local.cleanup()

    def finish(self, manifest: bytes) -> None:
        """Pack the staged files and upload the zip."""
        packed = Path(self._local.name) / "export.zip"
        pack(self.stage, manifest, packed)
        with store_errors(self._address):
            self._files.makedirs(self._files._parent(self._place), exist_ok=True)
            self._files.put_file(str(packed), self._place)


def connect(address: str) -> tuple[Any, str]:
    """Return the file system of an fsspec address, and the path on it. Raises OutputRefused."""
    try:
        files, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except (ValueError, ImportError, OSError) as error:
        raise OutputRefused(f"{without_credentials(address)} cannot be opened: {error}") from None
    return files, str(root)


@contextlib.contextmanager
def store_errors(address: str) -> Iterator[None]:
    """Raise OutputFailed for whatever the client of a store raises: each has errors of its own."""
    try:
        yield
    except OutputRefused:
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise OutputFailed(f"{without_credentials(address)} cannot be used: {said}") from None


def without_credentials(address: str) -> str:
    """Return the address without a user and a password in it."""
    return re.sub("//[^/@]*@", "//", address)


def marker(paths: Iterable[str]) -> bytes:
    """Return a list of files in the form of an export.json, for an export that is not finished."""
    files = [{"path": path} for path in sorted(paths)]
    return json.dumps({"exporter": {"name": PRODUCT}, "files": files}).encode()


Progress = Callable[[int, int], None]
"""Called with (tasks done, tasks in all)."""
