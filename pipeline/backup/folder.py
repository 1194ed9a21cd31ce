"""The folder of a backup: `manifest.json`, `rows-<id>/<table>.jsonl.gz`, and contents under their digest as in the artifact store.

The manifest is replaced last and atomically, so that a backup that was killed leaves the one before as it was. Contents are
shared by all backups of a folder: the next one copies only what is new.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.artifacts.store import CHUNK_BYTES, path

MANIFEST = "manifest.json"
FORMAT = 1


class UnusableBackup(Exception):
    """Raised when a backup cannot be read or restored. The message says what is wrong, and what to do."""


class Folder:
    """A folder that holds a backup, or will. Only this user can read it: it holds results."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self) -> None:
        """Create the folder. Raises UnusableBackup if it holds something else than backups."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        known = any((self._folder / name).exists() for name in (MANIFEST, "contents"))
        if not known and any(self._folder.iterdir()):
            raise UnusableBackup(f"{self._folder} is not empty and holds no backup; name another folder")

    def manifest(self) -> dict[str, Any]:
        """Return the manifest. Raises UnusableBackup."""
        try:
            found: dict[str, Any] = json.loads((self._folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            raise UnusableBackup(f"{self._folder} holds no finished backup: {MANIFEST} is missing") from None
        except ValueError as error:
            raise UnusableBackup(f"{self._folder / MANIFEST} cannot be read: {error}") from None
        if (written := found.pop("format", None)) != FORMAT:
            raise UnusableBackup(f"the backup has the format {written}; this version reads {FORMAT}")
        return found

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, which makes the backup valid, and delete the rows of earlier backups."""
        part = self._folder / f"{MANIFEST}.part"
        with _create(part) as file:
            file.write(json.dumps({"format": FORMAT, **manifest}, indent=2).encode())
        part.replace(self._folder / MANIFEST)
        for old in self._folder.glob("rows-*"):
            if old.name != manifest["rows"]:
                shutil.rmtree(old, ignore_errors=True)

    def write_lines(self, name: str, lines: Iterable[bytes]) -> tuple[int, str]:
        """Write a compressed file of lines. Return their number and the sha256 of the file."""
        target = self._folder / name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        count = 0
        with _create(target) as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            for line in lines:
                packed.write(line + b"\n")
                count += 1
        return count, _digest(target)

    def check(self, name: str, sha256: str) -> None:
        """Raise UnusableBackup unless the file has this digest."""
        target = self._folder / name
        if not target.is_file():
            raise UnusableBackup(f"{target} is missing")
        if _digest(target) != sha256:
            raise UnusableBackup(f"{target} has other bytes than were written")

    def read_lines(self, name: str) -> Iterator[bytes]:
        """Yield the lines of a file."""
        with gzip.open(self._folder / name, "rb") as file:
            yield from file

    def has(self, sha256: str, size: int) -> bool:
        """Return whether a content of this size is there."""
        place = self._place(sha256)
        return place.is_file() and place.stat().st_size == size

    def open(self, sha256: str) -> BinaryIO:
        """Open a content. Raises UnusableBackup if it is missing."""
        try:
            return self._place(sha256).open("rb")
        except FileNotFoundError:
            raise UnusableBackup(f"the content {sha256} is missing in {self._folder}") from None

    def put(self, source: BinaryIO, sha256: str) -> int:
        """Copy a content and check its digest. Return its size. Raises UnusableBackup."""
        place = self._place(sha256)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = place.with_suffix(".part")
        made, size = hashlib.sha256(), 0
        with _create(part) as file:
            while piece := source.read(CHUNK_BYTES):
                made.update(piece)
                size += len(piece)
                file.write(piece)
        if made.hexdigest() != sha256:
            part.unlink()
            raise UnusableBackup(f"the artifact store has other bytes under {sha256} than were fetched")
        part.replace(place)
        return size

    def _place(self, sha256: str) -> Path:
        return self._folder / "contents" / path(sha256)


def _create(target: Path) -> Any:
    return os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _digest(target: Path) -> str:
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
