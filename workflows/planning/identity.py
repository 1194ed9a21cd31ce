"""Identity of follow-ups: a unique_id that stays the same when a result is planned again, replayed, or its file edited."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scale.envelope import response_digest
from workflows.definition.model import MAX_UNIQUE_ID_LENGTH as MAX_UNIQUE_ID_LENGTH


def digest_of(value: Any) -> str:
    """Return a digest of a JSON value, 16 hex digits. The order of keys does not matter."""
    return response_digest(value)[:16]


def annotation_key(annotation: Mapping[str, Any]) -> str:
    """Return the annotation's uuid, or a digest of the annotation if it has no uuid that can be part of a unique_id."""
    uuid = annotation.get("uuid")
    return id_segment(uuid) if isinstance(uuid, str) and uuid else digest_of(annotation)


def id_segment(text: str) -> str:
    """Return text as a segment of a unique_id: unchanged if possible, else its digest. `retry-…` is reserved."""
    return text if re.fullmatch(r"(?!retry-)[A-Za-z0-9_-]{1,40}", text) else digest_of(text)


def response_segment(digest: str | None) -> str:
    """Return a response's digest as a segment of a unique_id."""
    return (digest or "none")[:16]


def unique_id(prefix: str, workflow: str, step: str, *segments: str) -> str:
    """Return `<workflow>.<step>.<source>` after the prefix: at most 120 characters of [A-Za-z0-9._-], without the prefix."""
    source = ".".join(segments)
    full = f"{workflow}.{step}.{source}"
    if len(full) > MAX_UNIQUE_ID_LENGTH:
        full = f"{workflow}.{step}.{response_digest(source)[:32]}"
    return prefix + full
