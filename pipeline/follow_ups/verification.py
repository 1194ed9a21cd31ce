"""Before money is spent: does Scale itself say what the callback said? Only where VERIFY_BEFORE_CREATE is set.

The key of a callback is the same for all and does not cover the body, so whoever has seen one could send anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping, select

from models import Response, Task
from pipeline.receive.replay import receive_task
from pipeline.service import Service
from scale.client import Client, PermanentError
from scale.envelope import response_digest, storable

VERIFIED_SECONDS = 60.0
"""For so long a source that was found to be true is not asked for again: a fan-out follows one result many times."""
MAX_REMEMBERED = 10_000


class SourceMismatch(Exception):
    """Scale says something else of the source than what the follow-up was planned from. args[0] is the reason."""


def verify(service: Service, client: Client, follow_up: RowMapping) -> None:
    """Ask Scale for the source of a follow-up. Raises Doubtful, or what the client raises.

    What Scale says is then taken in, as a delivery of its own.
    """
    source, response_id = follow_up["source_task_id"], follow_up["source_response_id"]
    known = (source, response_id)
    if service.verified.get(known, 0.0) > time.monotonic():
        return
    with service.reader.begin() as connection:
        type_name = connection.scalar(select(Task.type).where(Task.task_id == source))
        ours = connection.scalar(select(Response.response).where(Response.id == response_id))
    try:
        task = client.get_task(source)
    except PermanentError as unknown:
        raise SourceMismatch(
            f"Scale does not vouch for the source task {source}: {unknown.message}"
        ) from unknown
    differs = [
        name
        for name, one, other in (
            ("type", task.get("type"), type_name),
            ("response", comparable(task.get("response")), comparable(ours)),
        )
        if one != other
    ]
    if differs:
        receive_task(service, task, follow_up["environment"])
        raise SourceMismatch(
            f"Scale says another {' and '.join(differs)} of the source task {source} than we were told"
        )
    if len(service.verified) > MAX_REMEMBERED:
        service.verified.clear()
    service.verified[known] = time.monotonic() + VERIFIED_SECONDS


def comparable(response: Any) -> str | None:
    """Digest of a response without what Scale makes anew for each reader: the queries of signed addresses."""
    return None if response is None else response_digest(_without_queries(storable(response)))


def _without_queries(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_queries(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_queries(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("https://", "http://")):
        return value.partition("?")[0]
    return value
