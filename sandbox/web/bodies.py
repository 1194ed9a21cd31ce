"""Request bodies in the forms that Scale takes: JSON, and forms like `fields[title]=…` with repeated keys for arrays."""

import re
from collections.abc import Iterable
from typing import Any

import orjson
from flask import Request

from sandbox.errors import ScaleError

ARRAYS = frozenset(
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
"""Parameters that are arrays also when a form names only one element."""

MAX_DEPTH = 200
ENVELOPE_DEPTH = 10
"""Levels that the answers and the callbacks put around what a body said."""


def read_object(request: Request) -> dict[str, Any]:
    """The body as an object. An empty body is an empty object; None in an optional field is left out, as Scale does."""
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data") and request.form:
        return _from_form(request.form.items(multi=True))
    body = _read_json(request, {})
    if not isinstance(body, dict):
        raise ScaleError(400, "The request body must be a JSON object.")
    return body


def is_true(flag: Any) -> bool:
    """Whether a flag is set; forms and queries write it as text."""
    return str(flag).lower() in ("true", "1")


def read_texts(request: Request) -> list[str]:
    """The body as an array of texts; an empty body is an empty array."""
    body = _read_json(request, [])
    if not isinstance(body, list) or not all(isinstance(element, str) for element in body):
        raise ScaleError(400, "The request body must be an array of strings.")
    return body


def parse(raw: bytes) -> Any:
    """What JSON says. ValueError for what is none, or too deep to be shown again: orjson reads deeper than it writes."""
    body = orjson.loads(raw)
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        shown = body
        for _ in range(ENVELOPE_DEPTH):
            shown = [shown]
        try:
            orjson.dumps(shown)
        except orjson.JSONEncodeError as error:
            raise ValueError(str(error)) from None
    return body


def _read_json(request: Request, empty: Any) -> Any:
    raw = request.get_data()
    if not raw.strip():
        return empty
    try:
        return parse(raw)
    except ValueError as error:
        raise ScaleError(400, f"The request body is not valid JSON: {error}") from None


def _from_form(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """`a[b]=1` is {"a": {"b": "1"}}; `a[]=1`, and `a=1` twice, are {"a": ["1"]} and {"a": ["1", "1"]}."""
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
            place[last] = [value] if last in ARRAYS or inner[-1:] == [""] else value
    return body
