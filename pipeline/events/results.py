"""The result that an event carries: answer and annotations of a response version, or a signed link to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from sqlalchemy import Connection, Engine, RowMapping, Text, cast, func, select, tuple_

from config import Settings
from models import Annotation, Artifact, Response, Task
from pipeline.db.json import dumps
from pipeline.db.sizes import ANNOTATION_VALUES, if_small, is_large, text_length
from pipeline.db.streams import coalesced, stream_json
from pipeline.events.subscriptions import RESPONSE, TASK
from pipeline.jobs.queue import RetryLater
from pipeline.service import Service

MAX_RESULT_BYTES = 64 * 1024
"""Size of a result in an event, as JSON. A larger one is a link."""
MAX_RESULT_ANNOTATIONS = 1_000
PAGE_SIZE = 200
MAX_VALUE_CHARACTERS = 16 * 1024
"""Values of a page up to this size are read at once; a larger one is read in pieces."""
PENDING_RETRY_SECONDS = 5.0
LINK_SECONDS = 7 * 24 * 3600
PATH = "/results/"
FOLLOW_UP_COMPLETED = "follow-up.completed"
SHOWN = ("position", "uuid", "type", "label", "frame", "attributes", "geometry")
"""Columns of an annotation, as GET /tasks/{task_id}/annotations names them."""
JSON_COLUMNS = ("attributes", "geometry")
_COLUMNS = tuple(getattr(Annotation, name) for name in SHOWN)


class LinkExpired(Exception):
    """Raised for a signed link whose time has passed."""


class Version(NamedTuple):
    """One response version."""

    id: UUID
    task_id: str
    number: int
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
    columns = (Response.id, Response.task_id, Response.number, Response.annotation_count)
    is_chosen = Response.id == Task.response_id if number is None else Response.number == number
    statement = select(*columns).join(Task, Task.task_id == Response.task_id)
    statement = statement.where(Task.task_id == task_id, Task.purged_at.is_(None), is_chosen)
    row = connection.execute(statement).one_or_none()
    return None if row is None else Version(*row)


def _result(connection: Connection, settings: Settings, version: Version) -> dict[str, Any]:
    pending = select(Artifact.id).where(Artifact.response_id == version.id, Artifact.state == "pending")
    if connection.scalar(pending.limit(1)) is not None:
        raise RetryLater("files of the result are being fetched", PENDING_RETRY_SECONDS)
    # The database may write spaces that the event does not have.
    is_small = _characters(connection, version) <= 2 * MAX_RESULT_BYTES
    if version.annotation_count <= MAX_RESULT_ANNOTATIONS and is_small:
        values = select(Response.answer, Response.error).where(Response.id == version.id)
        rows = connection.execute(_annotations(version.id, *_COLUMNS)).mappings()
        result = {
            "response_number": version.number,
            **connection.execute(values).mappings().one(),
            "annotations": [dict(row) for row in rows],
            "url": None,
        }
        if len(dumps(result).encode()) <= MAX_RESULT_BYTES:
            return result
    nothing = dict.fromkeys(("answer", "error", "annotations"))
    link = signed_link(settings, version.task_id, version.number)
    return {"response_number": version.number, **nothing, "url": link}


def _characters(connection: Connection, version: Version) -> int:
    """Return the size of a result as JSON text, without its keys."""
    answer = select(text_length(Response.answer, Response.error)).where(Response.id == version.id)
    annotations = select(func.sum(text_length(*ANNOTATION_VALUES))).where(
        Annotation.response_id == version.id
    )
    return sum(int(connection.scalar(size) or 0) for size in (answer, annotations))


def _annotations(response_id: UUID, *columns: Any) -> Any:
    """Select annotations of a response in the order of their files and positions."""
    statement = select(*columns).where(Annotation.response_id == response_id)
    return statement.order_by(Annotation.file, Annotation.position)


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


def stream(reader: Engine, version: Version) -> Iterator[bytes]:
    """Yield a result as JSON text in bounded memory: no value of it is parsed."""
    return coalesced(_pieces(reader, version))


def _pieces(reader: Engine, version: Version) -> Iterator[bytes]:
    head = {"task_id": version.task_id, "response_number": version.number}
    yield dumps(head)[:-1].encode()
    for name in ("answer", "error"):
        yield f', "{name}": '.encode()
        yield from stream_json(reader, getattr(Response, name), Response.id == version.id)
    yield b', "annotations": ['
    after, separator = None, b""
    while rows := _page(reader, version.id, after):
        for row in rows:
            yield separator
            yield from _written(reader, version.id, row)
            separator = b", "
        after = (rows[-1]["file"], rows[-1]["position"])
    yield b"]}"


def _page(reader: Engine, response_id: UUID, after: tuple[int, int] | None) -> Sequence[RowMapping]:
    """Return the next PAGE_SIZE annotations, their JSON as text. `{column}_size` are the characters of what may be large."""
    values = (
        cast(column, Text).label(column.key) if column.key in JSON_COLUMNS else column for column in _COLUMNS
    )
    bounded = (if_small(value, MAX_VALUE_CHARACTERS) if is_large(value) else value for value in values)
    sizes = (text_length(column).label(f"{column.key}_size") for column in _COLUMNS if is_large(column))
    statement = _annotations(response_id, *bounded, *sizes, Annotation.file)
    if after is not None:
        statement = statement.where(tuple_(Annotation.file, Annotation.position) > tuple_(*after))
    with reader.begin() as connection:
        return connection.execute(statement.limit(PAGE_SIZE)).mappings().all()


def _written(reader: Engine, response_id: UUID, row: RowMapping) -> Iterator[bytes]:
    """Yield one annotation as a JSON object."""
    is_row = (
        Annotation.response_id == response_id,
        Annotation.file == row["file"],
        Annotation.position == row["position"],
    )
    before = "{"
    for name in SHOWN:
        yield f'{before}"{name}": '.encode()
        before = ", "
        if row.get(f"{name}_size", 0) > MAX_VALUE_CHARACTERS:
            yield from stream_json(reader, _as_json(reader, name), *is_row)
        elif name in JSON_COLUMNS:
            yield (row[name] or "null").encode()
        else:
            yield dumps(row[name]).encode()
    yield b"}"


def _as_json(reader: Engine, name: str) -> Any:
    column = getattr(Annotation, name)
    if name in JSON_COLUMNS:
        return column
    return func.to_json(column) if reader.dialect.name == "postgresql" else func.json_quote(column)
