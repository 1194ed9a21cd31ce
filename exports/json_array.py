"""A JSON array that is written while other parts of its file are still unknown."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, BinaryIO

from exports.export import dumps


class JsonArray:
    """Elements collected in a side file, one a line; memory does not grow with their number."""

    def __init__(self, side: Path) -> None:
        self._side = side
        self._is_empty = True

    def __enter__(self) -> JsonArray:
        self._file: BinaryIO = self._side.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._side.unlink()

    def append(self, element: Any) -> None:
        """Add an element."""
        self._file.write(dumps(element) if self._is_empty else b",\n" + dumps(element))
        self._is_empty = False

    def copy_to(self, file: BinaryIO) -> None:
        """Write the array with its brackets."""
        self._file.seek(0)
        file.write(b"[")
        shutil.copyfileobj(self._file, file, 1024 * 1024)
        file.write(b"]")
