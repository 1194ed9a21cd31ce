"""The text of a task about text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_of(params: Mapping[str, Any]) -> str | None:
    """Return the text that the task's parameters hold; None where it is behind an address, or absent."""
    text = params.get("text")
    if isinstance(text, str):
        return text
    attachment = params.get("attachment")
    if (
        params.get("attachment_type") == "text"
        and isinstance(attachment, str)
        and "://" not in attachment[:12]
    ):
        return attachment
    return None
