"""Canonical JSON: one form of a value, whatever the order of its keys and the spacing it came with."""

import hashlib
import json
from typing import Any

import orjson


def canonical_json(value: Any) -> bytes:
    """Return the value as compact JSON with sorted keys. A lone surrogate is escaped."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest(value: Any) -> str:
    """Return the SHA-256 (hex) of the value's canonical form."""
    return digest_of(canonical_json(value))


def digest_of(canonical: bytes) -> str:
    """Return the digest of a value whose canonical form is known already."""
    return hashlib.sha256(canonical).hexdigest()
