"""A finding of a check: where it is, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Path = tuple[str | int, ...]
Fields = Mapping[str, Any]
"""The fields of a step, as loaded."""
Steps = Mapping[str, Fields]


class Finding(NamedTuple):
    """One error or warning. `line`: None for the line where the path is written."""

    path: Path
    message: str
    warning: bool = False
    line: int | None = None

    def inside(self, *path: str | int) -> Finding:
        """Return the finding with `path` before its own."""
        return self._replace(path=(*path, *self.path))


def error_starter(fields: Fields) -> str | None:
    """Return the step that this one's on_error starts, or None."""
    start: str | None = (fields.get("on_error") or {}).get("start")
    return start
