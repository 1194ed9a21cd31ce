"""JSON of columns, by orjson or, for what orjson refuses, by the standard library."""

from __future__ import annotations

import json
from typing import Any

import orjson

from pipeline.db.memory_budget import charge_parsing


def dumps(value: Any) -> str:
    """Return JSON for a column. The standard library writes the integers that orjson refuses."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False)


def loads(text: str | bytes) -> Any:
    """Return the value of JSON from a column. Raises ReadTooLarge and ReadersBusy within a memory budget."""
    charge_parsing(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
