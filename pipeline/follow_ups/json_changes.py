"""The difference of two JSON values, path by path: what a request said before, and what it says now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

ABSENT = "(absent)"
MAX_CHANGES = 100
"""Changes of one request that are shown."""


class JsonChange(NamedTuple):
    """One value that differs. ABSENT stands for a missing key or element."""

    path: str  # "params.labels[2]"; empty for the value itself
    before: Any
    after: Any


def json_changes(before: Any, after: Any, path: str = "") -> Iterator[JsonChange]:
    """Yield each value that differs, in the order of the keys."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            inner = f"{path}.{key}" if path else str(key)
            yield from json_changes(before.get(key, ABSENT), after.get(key, ABSENT), inner)
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            old = before[index] if index < len(before) else ABSENT
            new = after[index] if index < len(after) else ABSENT
            yield from json_changes(old, new, f"{path}[{index}]")
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield JsonChange(path, before, after)
