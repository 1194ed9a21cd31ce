"""Compare the source of a follow-up with what Scale itself says, before money is spent: only if VERIFY_BEFORE_CREATE is set.

The key of a callback is the same for all callbacks and does not sign the body, so that a leaked key lets anyone forge one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from models import Delivery, Response, Task
from pipeline.db.compiled import Record
from pipeline.receive.replay import receive_task
from pipeline.service import Service
from scale.client import Client, PermanentError
from scale.envelope import response_digest, storable
from workflows.definition.model import INPUT

VERIFIED_SECONDS = 60.0
"""How long a verified source counts as verified: a fan-out follows one result many times."""
MAX_VERIFIED = 10_000


class SourceMismatch(Exception):
    """Raised when Scale's task differs from the one that the follow-up was planned from. args[0] is the reason."""


def verify(service: Service, client: Client, follow_up: Record) -> None:
    """Fetch the source of a follow-up from Scale. Raises SourceMismatch, or what the client raises.

    A task that differs is received as a delivery of its own.
    """
    source, response_id = follow_up["source_task_id"], follow_up["source_response_id"]
    key = (source, response_id)
    if service.verified.get(key, 0.0) > time.monotonic():
        return
    with service.reader.begin() as connection:
        if _is_input(connection, source):
            return
        type_name = connection.scalar(select(Task.type).where(Task.task_id == source))
        ours = connection.scalar(select(Response.response).where(Response.id == response_id))
    try:
        task = client.get_task(source)
    except PermanentError as error:
        raise SourceMismatch(f"Scale does not confirm the source task {source}: {error.message}") from error
    compared = (
        ("type", task.get("type"), type_name),
        ("response", comparable(task.get("response")), comparable(ours)),
    )
    differs = [name for name, theirs, expected in compared if theirs != expected]
    if differs:
        receive_task(service, task, follow_up["environment"])
        raise SourceMismatch(
            f"Scale has another {' and '.join(differs)} of the source task {source} than the callback"
        )
    if len(service.verified) > MAX_VERIFIED:
        service.verified.clear()
    service.verified[key] = time.monotonic() + VERIFIED_SECONDS


def _is_input(connection: Connection, task_id: str) -> bool:
    """Return whether a source is an input that this service stored itself: Scale does not know it."""
    stored = select(Delivery.id).where(Delivery.task_id == task_id, Delivery.kind == INPUT)
    return connection.scalar(stored.limit(1)) is not None


def comparable(response: Any) -> str | None:
    """Return the digest of a response without what Scale generates for each reader: the queries of signed URLs."""
    return None if response is None else response_digest(_without_queries(storable(response)))


def _without_queries(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_queries(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_queries(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("https://", "http://")):
        return value.partition("?")[0]
    return value
