"""Calls of Scale's API that a person makes and that change something there: each is in the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.access.audit import log_action
from pipeline.service import Service

Answer = TypeVar("Answer")


def change_at_scale(
    service: Service, actor: str, action: str, subject: str, call: Callable[[], Answer], **details: Any
) -> Answer:
    """Make `call`, audit it as `scale.<action>` of `subject`, and return its answer. Raises ScaleError."""
    answer = call()
    with service.engine.begin() as connection:
        log_action(connection, actor, f"scale.{action}", subject, details or None)
    return answer
