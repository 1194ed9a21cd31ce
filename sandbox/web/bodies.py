"""Read request bodies: JSON, and forms like `fields[title]=…` with repeated keys for arrays."""

import re
from collections.abc import Iterable
from typing import Any

import orjson
from flask import Request

from sandbox.errors import ScaleError

ARRAY_FIELDS = frozenset(
    [
        "attachments",
        "categories",
        "choices",
        "emails",
        "features",
        "groups",
        "instance_labels",
        "labels",
        "objects_to_annotate",
        "phrases",
        "projects",
        "tags",
        "add_emails",
        "remove_emails",
    ]
)
"""Parameters that are arrays even if a form has only one element."""

MAX_DEPTH = 200
CHUNK_BYTES = 64 * 1024
ENVELOPE_DEPTH = 10
"""Levels of nesting that answers and callbacks add around a body."""


def read_object(request: Request) -> dict[str, Any]:
    """Return the body as an object; an empty body is an empty object. Raises ScaleError (400)."""
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data") and request.form:
        return _parse_form(request.form.items(multi=True))
    body = _read_json(request, {})
    if not isinstance(body, dict):
        raise ScaleError(400, "The request body must be a JSON object.")
    return body


def read_bytes(request: Request, limit: int) -> bytes:
    """Return the body, with a length or chunked, of at most `limit` bytes. Raises ScaleError (413)."""
    body = bytearray()
    while len(body) <= limit and (chunk := request.stream.read(min(CHUNK_BYTES, limit + 1 - len(body)))):
        body += chunk
    if len(body) > limit:
        raise ScaleError(413, f"The request body is larger than {limit} bytes.")
    return bytes(body)


def read_strings(request: Request) -> list[str]:
    """Return the body as an array of strings; an empty body is an empty array. Raises ScaleError (400)."""
    body = _read_json(request, [])
    if not isinstance(body, list) or not all(isinstance(element, str) for element in body):
        raise ScaleError(400, "The request body must be an array of strings.")
    return body


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text.

    Raises ValueError if it is not JSON, or too deep to be written again: orjson reads deeper than it writes.
    """
    body = orjson.loads(raw)
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        wrapped = body
        for _ in range(ENVELOPE_DEPTH):
            wrapped = [wrapped]
        try:
            orjson.dumps(wrapped)
        except orjson.JSONEncodeError as error:
            raise ValueError(str(error)) from None
    return body


def _read_json(request: Request, empty: Any) -> Any:
    raw = request.get_data()
    if not raw.strip():
        return empty
    try:
        return parse_json(raw)
    except ValueError as error:
        raise ScaleError(400, f"The request body is not valid JSON: {error}") from None


def _parse_form(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the object that a form describes: `a[b]=1` is {"a": {"b": "1"}}, `a=1&a=2` is {"a": ["1", "2"]}."""
    body: dict[str, Any] = {}
    for key, value in pairs:
        name, rest = re.match(r"([^\[]*)(.*)", key, re.DOTALL).groups()  # type: ignore[union-attr]
        inner = re.findall(r"\[([^\]]*)\]", rest)
        place, last = body, name
        for part in inner:
            if part == "":
                break
            child = place.get(last)
            if not isinstance(child, dict):
                child = place[last] = {}
            place, last = child, part
        if last in place and not isinstance(place[last], dict):
            before = place[last]
            place[last] = [*(before if isinstance(before, list) else [before]), value]
        else:
            place[last] = [value] if last in ARRAY_FIELDS or inner[-1:] == [""] else value
    return body
