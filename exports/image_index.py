"""Which images an export shows: each address once, with its file name, size and split. In a SQLite file, not in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from exports import names

TABLES = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE, stem TEXT NOT NULL UNIQUE, file_name TEXT NOT NULL,
    split TEXT NOT NULL, uses INTEGER NOT NULL, read INTEGER NOT NULL DEFAULT 0, width INTEGER, height INTEGER, media_type TEXT, turned INTEGER NOT NULL
    DEFAULT 0, given_width INTEGER, given_height INTEGER, problem TEXT
);
CREATE TABLE waiting (image_id INTEGER NOT NULL, position INTEGER NOT NULL, pickled BLOB NOT NULL,
    PRIMARY KEY (image_id, position)) WITHOUT ROWID;
"""


class Row(NamedTuple):
    """One image of the export: its id from 1, its address and file name, and its size in pixels as shown, once it is known."""

    id: int
    address: str
    file_name: str
    split: str
    uses: int
    width: int | None
    height: int | None
    media_type: str | None
    turned: int
    problem: str | None


COLUMNS = ", ".join(Row._fields)


class ImageIndex:
    """The images in the order in which they were added."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(TABLES)
        self._connection.execute("BEGIN")
        self._next = 1

    def close(self) -> None:
        """Close the index."""
        self._connection.close()

    def add(self, address: str, split: str, given: tuple[int, int] | None) -> None:
        """Count a use of this image. `given`: width and height that the task names, for an image that cannot be read."""
        known = self._connection.execute(
            "UPDATE images SET uses = uses + 1, given_width = coalesce(given_width, ?),"
            " given_height = coalesce(given_height, ?) WHERE address = ?",
            (*(given or (None, None)), address),
        )
        if known.rowcount:
            return
        stem, extension = names.of_address(address)
        if self._has_stem(stem):
            stem = names.with_digest(stem, address)
        self._connection.execute(
            "INSERT INTO images (id, address, stem, file_name, split, uses, given_width, given_height)"
            " VALUES (?, ?, ?, ?, ?, 1, ?, ?)",
            (
                self._next,
                address,
                names.unique_key(stem),
                f"{stem}{extension}",
                split,
                *(given or (None, None)),
            ),
        )
        self._next += 1

    def _has_stem(self, stem: str) -> bool:
        key = names.unique_key(stem)
        return self._connection.execute("SELECT 1 FROM images WHERE stem = ?", (key,)).fetchone() is not None

    def get(self, address: str) -> Row | None:
        """Return the image at this address, or None."""
        found = self._connection.execute(f"SELECT {COLUMNS} FROM images WHERE address = ?", (address,))
        row = found.fetchone()
        return row and Row(*row)

    def __iter__(self) -> Iterator[Row]:
        after = 0
        while True:
            found = self._connection.execute(
                f"SELECT {COLUMNS} FROM images WHERE id > ? ORDER BY id LIMIT 500", (after,)
            ).fetchall()
            if not found:
                return
            for row in found:
                yield Row(*row)
            after = found[-1][0]

    def given_size(self, image_id: int) -> tuple[int, int] | None:
        """Return the size that a task names for this image."""
        width, height = self._connection.execute(
            "SELECT given_width, given_height FROM images WHERE id = ?", (image_id,)
        ).fetchone()
        return None if width is None or height is None else (width, height)

    def set_size(self, image_id: int, width: int, height: int, media_type: str | None, turned: bool) -> None:
        """Store the size of an image in pixels as shown. `turned`: its EXIF orientation swaps width and height."""
        self._connection.execute(
            "UPDATE images SET width = ?, height = ?, media_type = ?, turned = ? WHERE id = ?",
            (width, height, media_type, turned, image_id),
        )

    def set_problem(self, image_id: int, problem: str) -> None:
        """Store why the image cannot be read, in a few words."""
        self._connection.execute("UPDATE images SET problem = ? WHERE id = ?", (problem, image_id))

    # An image that several tasks show waits until the last of them was read.

    def wait(self, image_id: int, position: int, pickled: bytes) -> int:
        """Store one task's annotations of an image. Return the number of tasks that are still to come."""
        self._connection.execute("INSERT INTO waiting VALUES (?, ?, ?)", (image_id, position, pickled))
        (left,) = self._connection.execute(
            "UPDATE images SET read = read + 1 WHERE id = ? RETURNING uses - read", (image_id,)
        ).fetchone()
        return int(left)

    def take(self, image_id: int) -> Iterable[bytes]:
        """Yield what was kept of an image, by the position of the tasks."""
        kept = self._connection.execute(
            "SELECT pickled FROM waiting WHERE image_id = ? ORDER BY position", (image_id,)
        ).fetchall()
        self._connection.execute("DELETE FROM waiting WHERE image_id = ?", (image_id,))
        return [row[0] for row in kept]
