"""The result that an event carries: answer and annotations of a response version, or a signed link to them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from sqlalchemy import Connection, Engine, select, tuple_

from config import Settings
from models import Annotation, Artifact, Response, Task
from pipeline.db.json import dumps
from pipeline.events.subscriptions import RESPONSE, TASK
from pipeline.jobs.queue import RetryLater
from pipeline.service import Service

MAX_RESULT_BYTES = 64 * 1024
"""Size of a result in an event, as JSON. A larger one is a link."""
MAX_RESULT_ANNOTATIONS = 1_000
PAGE_SIZE = 1_000
PENDING_RETRY_SECONDS = 5.0
LINK_SECONDS = 7 * 24 * 3600
PATH = "/results/"
FOLLOW_UP_COMPLETED = "follow-up.completed"
SHOWN = ("position", "uuid", "type", "label", "frame", "attributes", "geometry")
"""Columns of an annotation, as GET /tasks/{task_id}/annotations names them."""
_COLUMNS = tuple(getattr(Annotation, name) for name in SHOWN)


class LinkExpired(Exception):
    """Raised for a signed link whose time has passed."""


class Version(NamedTuple):
    """One response version."""

    id: UUID
    task_id: str
    number: int
    answer: Any
    error: Any
    annotation_count: int


def with_result(service: Service, event: str, payload: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the payload of an event with `result` in its data, if it is about a task or a response.

    Raises RetryLater while a file of the result is being fetched.
    """
    if payload is None or (event.partition(".")[0] not in (TASK, RESPONSE) and event != FOLLOW_UP_COMPLETED):
        return payload
    data = payload["data"]
    with service.reader.begin() as connection:
        version = find_version(connection, data["task_id"], data.get("number"))
        result = None if version is None else _result(connection, service.settings, version)
    return {**payload, "data": {**data, "result": result}}


def find_version(connection: Connection, task_id: str, number: int | None = None) -> Version | None:
    """Return a response version of a task, or the current one; None if there is none, or if the task was purged."""
    columns = (
        Response.id, Response.task_id, Response.number, Response.answer, Response.error, Response.annotation_count,
    )  # fmt: skip
    is_chosen = Response.id == Task.response_id if number is None else Response.number == number
    statement = select(*columns).join(Task, Task.task_id == Response.task_id)
    statement = statement.where(Task.task_id == task_id, Task.purged_at.is_(None), is_chosen)
    row = connection.execute(statement).one_or_none()
    return None if row is None else Version(*row)


def _result(connection: Connection, settings: Settings, version: Version) -> dict[str, Any]:
    pending = select(Artifact.id).where(Artifact.response_id == version.id, Artifact.state == "pending")
    if connection.scalar(pending.limit(1)) is not None:
        raise RetryLater("files of the result are being fetched", PENDING_RETRY_SECONDS)
    result: dict[str, Any] = {
        "response_number": version.number,
        "answer": version.answer,
        "error": version.error,
    }
    if version.annotation_count <= MAX_RESULT_ANNOTATIONS:
        rows = connection.execute(_page(version.id, None, PAGE_SIZE)).mappings()
        whole = {**result, "annotations": [_shown(row) for row in rows], "url": None}
        if len(dumps(whole).encode()) <= MAX_RESULT_BYTES:
            return whole
    link = signed_link(settings, version.task_id, version.number)
    return {**dict.fromkeys(result), "response_number": version.number, "annotations": None, "url": link}


def _page(response_id: UUID, after: tuple[int, int] | None, limit: int) -> Any:
    statement = select(*_COLUMNS, Annotation.file).where(Annotation.response_id == response_id)
    if after is not None:
        statement = statement.where(tuple_(Annotation.file, Annotation.position) > tuple_(*after))
    return statement.order_by(Annotation.file, Annotation.position).limit(limit)


def _shown(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: row[name] for name in SHOWN}


def signed_link(settings: Settings, task_id: str, number: int) -> str:
    """Return a URL of a response version that is valid for LINK_SECONDS."""
    return f"{settings.public_url}{PATH}{_serializer(settings).dumps((task_id, number))!s}"


def parse_link(settings: Settings, signed: str) -> tuple[str, int] | None:
    """Return (task_id, number) of a signed link; None if this service did not sign it. Raises LinkExpired."""
    try:
        task_id, number = _serializer(settings).loads(signed, max_age=LINK_SECONDS)
    except SignatureExpired:
        raise LinkExpired from None
    except BadSignature:
        return None
    return task_id, number


def _serializer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(settings.secret_key, salt="weighbridge.results")


def stream(reader: Engine, version: Version) -> Iterator[str]:
    """Yield a result as JSON text in bounded memory, one transaction for each PAGE_SIZE annotations."""
    head = {"task_id": version.task_id, "response_number": version.number}
    head |= {"answer": version.answer, "error": version.error}
    yield json.dumps(head)[:-1] + ', "annotations": ['
    after, separator = None, ""
    while True:
        with reader.begin() as connection:
            rows = connection.execute(_page(version.id, after, PAGE_SIZE)).mappings().all()
        for row in rows:
            yield separator + dumps(_shown(row))
            separator = ", "
        if len(rows) < PAGE_SIZE:
            break
        after = (rows[-1]["file"], rows[-1]["position"])
    yield "]}"
