"""Read values of a request leniently: a value of the wrong form is treated as absent."""

import hashlib
import json
from typing import Any


def digest(*values: Any) -> str:
    """Return the sha256 over canonical JSON; values unknown to JSON are represented by their text."""
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def number_or_none(value: Any) -> float | None:
    """Return a finite number given as a number or as text ("30", as forms send it), else None."""
    try:
        parsed = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        return None
    return parsed if parsed is not None and abs(parsed) < 1e12 else None


def as_number(value: Any, default: float) -> float:
    """Return a finite number given as a number or as text, else `default`."""
    parsed = number_or_none(value)
    return default if parsed is None else parsed


def as_bool(value: Any) -> bool:
    """Return whether a flag is set; forms send it as text."""
    return value is True or value == "true"


def as_dict(value: Any) -> dict[str, Any]:
    """Return an object as it is, anything else as an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return an array as it is, anything else as an empty one."""
    return value if isinstance(value, list) else []


def dicts_in(value: Any) -> list[dict[str, Any]]:
    """Return the objects in an array, leaving out everything else."""
    return [entry for entry in as_list(value) if isinstance(entry, dict)]
