"""Keeps the files behind results under the digest of their content, in a folder or in any fsspec store (s3://…).

The artifact jobs write here what fetch() brings, and everything that shows, reads or exports a file opens it here.
"""

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import fsspec

CHUNK_BYTES = 1024 * 1024


class Incoming:
    """A file that is being written. `commit` gives it its name; a file that is not committed is discarded."""

    def __init__(self, store: "ArtifactStore") -> None:
        self._store = store
        self._files, self._path = store._place(f"incoming/{uuid.uuid4().hex}")
        self._files.makedirs(self._files._parent(self._path), exist_ok=True)
        self._file = self._files.open(self._path, "wb")

    def write(self, piece: bytes, /) -> None:
        """Append bytes to the incoming file."""
        self._file.write(piece)

    def commit(self, sha256: str) -> None:
        """Move the file to its place under its digest, atomically, also where it replaces the same content."""
        _, place = self._store._place(path(sha256))
        self._file.flush()
        with contextlib.suppress(AttributeError, OSError):  # only files on this machine have a number to sync
            os.fsync(self._file.fileno())
        self._file.close()
        self._files.makedirs(self._files._parent(place), exist_ok=True)
        self._files.mv(self._path, place)

    def discard(self) -> None:
        """Delete the file unless it was committed."""
        with contextlib.suppress(
            Exception
        ):  # a store that fails here has failed before, with the reason that counts
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path)


class ArtifactStore:
    """The store at `address`: a folder, or a URL that fsspec knows. Safe to share between threads and forked workers.

    Every method but `incoming`, `put` and `delete_abandoned` takes a content's sha256 as 64 lower-case hex digits, else
    ValueError; `open` and `size` raise FileNotFoundError. What the store itself raises (OSError and its kin) goes through.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/") if "://" in address else os.path.abspath(address)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Provide a file to write: `with store.incoming() as file: … file.write(piece) …; file.commit(sha256)`."""
        file = Incoming(self)
        try:
            yield file
        finally:
            file.discard()

    def put(self, source: BinaryIO) -> tuple[str, int]:
        """Copy a file into the store, piece by piece. Returns its sha256 and size in bytes."""
        digest = hashlib.sha256()
        size = 0
        with self.incoming() as file:
            while piece := source.read(CHUNK_BYTES):
                digest.update(piece)
                size += len(piece)
                file.write(piece)
            file.commit(digest.hexdigest())
        return digest.hexdigest(), size

    def open(self, sha256: str) -> BinaryIO:
        """Open the content for reading. Raises FileNotFoundError."""
        files, place = self._place(path(sha256))
        opened: BinaryIO = files.open(place, "rb")
        return opened

    def exists(self, sha256: str) -> bool:
        """Return whether the store holds this content."""
        files, place = self._place(path(sha256))
        return bool(files.exists(place))

    def size(self, sha256: str) -> int:
        """Return the size of the content in bytes. Raises FileNotFoundError."""
        files, place = self._place(path(sha256))
        return int(files.size(place))

    def delete(self, sha256: str) -> None:
        """Delete a content; one that is not there is no error."""
        files, place = self._place(path(sha256))
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(place)

    def free_bytes(self) -> int | None:
        """Return the free space of the disk that holds the store; None for a remote store, or before its folder exists."""
        if "://" in self._address or not os.path.isdir(self._address):
            return None
        return shutil.disk_usage(self._address).free

    def delete_abandoned(self, older_than: timedelta) -> int:
        """Delete files whose writer was killed before it committed or discarded them. Returns how many."""
        files, folder = self._place("incoming")
        dropped = 0
        for found in files.ls(folder, detail=False) if files.exists(folder) else ():
            with contextlib.suppress(FileNotFoundError):
                if datetime.now(UTC) - files.modified(found) > older_than:
                    files.rm_file(found)
                    dropped += 1
        return dropped

    def _place(self, name: str) -> tuple[Any, str]:
        """Return the file system and the whole path. fsspec keeps one instance a process and thread, so asking each time is
        cheap, and right after a fork, where an instance made before it would refuse to work."""
        files, root = fsspec.core.url_to_fs(self._address, use_listings_cache=False)
        return files, f"{root.rstrip('/')}/{name}"


def path(sha256: str) -> str:
    """Return the path of a content inside the store: ab/cd/<sha256>. Raises ValueError for any other text."""
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"not a sha256: {sha256[:80]!r}")
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
