"""Who a follow-up is: a unique_id that looking again, replaying and editing the file do not change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scale.envelope import response_digest

MAX_UNIQUE_ID_LENGTH = 120  # characters of a unique_id, without the prefix


def digest_of(value: Any) -> str:
    """A short digest of any JSON value: the same for the same value, in whatever order its keys come."""
    return response_digest(value)[:16]


def annotation_key(annotation: Mapping[str, Any]) -> str:
    """The annotation's uuid, or a digest of it when it has none that can stand in a unique_id."""
    uuid = annotation.get("uuid")
    return id_segment(uuid) if isinstance(uuid, str) and uuid else digest_of(annotation)


def id_segment(word: str) -> str:
    """A word as a part of a unique_id; one that could not stand there, or would read as a retry, gives its digest."""
    return word if re.fullmatch(r"(?!retry-)[A-Za-z0-9_-]{1,40}", word) else digest_of(word)


def response_segment(digest: str | None) -> str:
    """A response's digest as a part of a unique_id."""
    return (digest or "none")[:16]


def unique_id(prefix: str, workflow: str, step: str, *parts: str) -> str:
    """`<workflow>.<step>.<source>`, at most 120 characters of [A-Za-z0-9._-], after the prefix."""
    source = ".".join(parts)
    whole = f"{workflow}.{step}.{source}"
    return prefix + (
        whole if len(whole) <= MAX_UNIQUE_ID_LENGTH else f"{workflow}.{step}.{response_digest(source)[:32]}"
    )
