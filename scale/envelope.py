"""The bytes of a callback as one `Callback`: the first step after authentication, and the only one that reads raw bytes.

Scale names no event and no delivery; what happened is read from the status, the review and the audits of the task object.
"""

import hashlib
import json
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final, cast

import orjson

from scale.canonical import digest
from scale.fields import (
    boolean,
    date,
    integer,
    json_list,
    json_object,
    json_type_name,
    load,
    name,
    parse_date,
    schema,
    short_name,
    string,
    strings,
    word,
)

__all__ = [
    "ABSENT",
    "Callback",
    "InvalidCallback",
    "TaskObject",
    "parse_callback",
    "parse_date",
    "parse_json",
    "parse_task",
    "response_digest",
    "storable",
]


class InvalidCallback(Exception):
    """Raised when an authentic body is no callback; args[0] says why, in a sentence."""


class Absent(Enum):
    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT  # the response of a callback that has none


@dataclass(frozen=True, slots=True)
class TaskObject:
    """Scale's task object, typed; None where it is absent, null or of the wrong form. Times are aware UTC."""

    raw: dict[str, Any]
    task_id: str | None = None
    type: str | None = None
    status: str | None = None
    project: str | None = None
    batch: str | None = None
    unique_id: str | None = None
    instruction: str | None = None
    urgency: str | None = None
    tags: list[str] | None = None
    priority: int | None = None
    metadata: dict[str, Any] | None = None
    params: dict[str, Any] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    is_test: bool | None = None
    review_status: str | None = None  # accepted rejected fixed commented pending
    review_comments: list[str] | None = None
    reviewed_at: datetime | None = None
    callback_succeeded: bool | None = None


@dataclass(frozen=True, slots=True)
class Callback:
    """One delivery with its parsed envelope."""

    environment: str  # live or test
    event: str  # completed accepted rejected fixed commented recalled error canceled batch
    clock: datetime | None  # the latest date at which Scale touched the task; None: the receipt counts
    task_id: str | None  # None only for a batch
    status: str | None
    task: TaskObject | None
    response: Any  # ABSENT where there is none
    batch: str | None  # the name in a body that is about a batch
    warnings: list[str] = field(default_factory=list)
    batch_project: str | None = None
    batch_details: dict[str, Any] | None = None  # the batch as it came


LARGE_BYTES = 4 * 1024 * 1024
MAX_JSON_TOKENS = 6_000_000
"""Braces, brackets, commas and colons of a body. Python needs about 50 bytes of memory for each."""
MAX_DEPTH = 200  # what orjson writes again (254), with room for what we put around it
_TOKENS = (b"{", b"[", b",", b":")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_json(body: bytes) -> Any:
    """Parse JSON with orjson, and what it refuses (NaN, 1e400, a lone surrogate, a byte order mark) with the standard library.

    The last of equal keys wins. Raises InvalidCallback; for too many values before any is built.
    """
    if len(body) > LARGE_BYTES and (tokens := sum(map(body.count, _TOKENS))) > MAX_JSON_TOKENS:
        raise InvalidCallback(f"the body has {tokens:,} JSON tokens; at most {MAX_JSON_TOKENS:,} are parsed")
    try:
        value = _loads(body)
    except RecursionError:
        raise InvalidCallback(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidCallback(f"the body is not JSON: {error}") from None
    if _too_deep(body, value):
        raise InvalidCallback(f"the body is nested deeper than {MAX_DEPTH} levels")
    return value


MIN_REPEATED_BYTES = 4 * 1024
"""Size from which it pays to look whether a response is repeated."""
_RESPONSE_KEY = b'"response":'
_MARK = secrets.token_hex(16)  # in place of a response; no sender knows it


def _parse_repeated(body: bytes) -> dict[str, Any] | None:
    """Parse a body that has the same response twice, as Scale sends a result: in itself and in its task.

    The response is parsed once, which takes half the time and memory. Return None for a body of any other form.
    """
    if len(body) < 2 * MIN_REPEATED_BYTES:
        return None
    first, second = body.find(_RESPONSE_KEY), body.rfind(_RESPONSE_KEY)
    first, second = first + len(_RESPONSE_KEY), second + len(_RESPONSE_KEY)
    end = body.rfind(b"}", first, first + _common_size(body, first, second)) + 1
    if end - first < MIN_REPEATED_BYTES:
        return None
    mark = f'"{_MARK}"'.encode()
    try:
        outer = parse_json(mark.join((body[:first], body[end:second], body[second + end - first :])))
        task = outer["task"]
        if outer["response"] != _MARK or task["response"] != _MARK:
            return None
        outer["response"] = task["response"] = parse_json(body[first:end])
    except (InvalidCallback, LookupError, TypeError):
        return None
    return cast(dict[str, Any], outer)


def _common_size(body: bytes, first: int, second: int) -> int:
    """Return how many bytes from `first` on are the same from `second` on, at most up to `second`. Compares each byte once."""
    size, beyond = 0, min(second - first, len(body) - second) + 1
    while size + 1 < beyond:
        middle = (size + beyond) // 2
        if body[first + size : first + middle] == body[second + size : second + middle]:
            size = middle
        else:
            beyond = middle
    return size


def _loads(body: bytes) -> Any:
    if len(body) <= LARGE_BYTES:  # beyond, orjson takes half as much memory again as the standard library
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
    return json.loads(body, parse_int=_parse_int)


def _parse_int(digits: str) -> int | float | str:
    """Parse an integer as orjson does: beyond 64 bits as a float. Beyond floats it stays text; Python refuses 4,300 digits."""
    if len(digits) <= 20 and -(2**63) <= (number := int(digits)) < 2**64:
        return number
    approximate = float(digits)
    return approximate if math.isfinite(approximate) else digits


def _too_deep(body: bytes, value: Any) -> bool:
    if len(body) < 4096 and body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    # Peel the brackets, innermost first: a pass takes away one or two levels, and bodies rarely have more than ten.
    brackets = body.translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH // 2):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return False
    level = [value]  # brackets inside strings, or really deep: look at the values themselves
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for node in level
            if type(node) in (dict, list)
            for child in (node.values() if type(node) is dict else node)
        ]
        if not level:
            return False
    return True


TASK = schema(
    task_id=name,
    type=word,
    status=word,
    project=short_name,
    batch=short_name,
    unique_id=short_name,
    instruction=string,
    urgency=word,
    tags=strings,
    priority=integer,
    metadata=json_object,
    params=json_object,
    created_at=date,
    updated_at=date,
    completed_at=date,
    is_test=boolean,
    callback_succeeded=boolean,
    callback_completed=boolean,
    customer_review_status=word,
    customer_review_comments=strings,
    customer_audited_at=date,
    audits=json_list,
)
AUDIT = schema(audited_at=date, audit_result=word, audit_source=word)
ENVELOPE = schema(task_id=name, status=word, task=json_object)
BATCH = schema(
    batch=short_name,
    batch_name=short_name,
    name=short_name,
    project=short_name,
    status=word,
    updated_at=date,
    completed_at=date,
)

RESULT_KEYS_OUTSIDE_RESPONSE = ("attempts", "document_pages", "threads", "errors")
"""Keys of a task object that belong to the response of some types. So does every key that ends in `_reports`."""
TASK_SIGNS = ("params", "threads", "created_at", "updated_at", "completed_at")
"""Keys that tell a task object without a type, as the second API version has it, from the envelope of a callback."""
ENVELOPE_KEYS = frozenset(("task_id", "task", "response", "status"))
MAX_LISTED = 20
REVIEWS = {
    "accepted": "accepted",
    "approved": "accepted",
    "rejected": "rejected",
    "fixed": "fixed",
    "commented": "commented",
}
STATUS_EVENTS = {
    "pending": "recalled",
    "error": "error",
    "canceled": "canceled",
    "cancelled": "canceled",
    "deleted": "canceled",
}


def parse_task(raw: dict[str, Any]) -> tuple[TaskObject, datetime | None, list[str]]:
    """Return the typed task object, its clock and warnings. The clock is None if the object has no date but created_at."""
    values, warnings = load(TASK, raw, "task.")
    review = values.pop("customer_review_status", None)
    comments = values.pop("customer_review_comments", None)
    reviewed_at = values.pop("customer_audited_at", None)
    dates = [values.get("updated_at"), values.get("completed_at"), reviewed_at]
    if audits := values.pop("audits", None):
        last, audited, audit_warnings = _audits(audits)
        review = review or last.get("audit_result")
        reviewed_at = reviewed_at or last.get("audited_at")
        dates += audited
        warnings += audit_warnings
    completed = values.pop("callback_completed", None)
    if values.get("callback_succeeded") is None:
        values["callback_succeeded"] = True if raw.get("callback_succeeded_at") else completed
    task = TaskObject(
        raw=raw,
        review_status=REVIEWS.get(review, review) if review else None,
        review_comments=comments,
        reviewed_at=reviewed_at,
        **values,
    )
    return task, _latest(dates), warnings


def _audits(audits: list[Any]) -> tuple[dict[str, Any], list[datetime | None], list[str]]:
    """Return the customer's latest audit ({} for none), the dates of all audits, and warnings."""
    last: dict[str, Any] = {}
    dates: list[datetime | None] = []
    warnings: list[str] = []
    for position, item in enumerate(audits):
        if type(item) is not dict:
            warnings.append(f"task.audits[{position}] is {json_type_name(item)}, not an object")
            continue
        audit, audit_warnings = load(AUDIT, item, f"task.audits[{position}].")
        warnings += audit_warnings
        at = audit.get("audited_at")
        dates.append(at)
        newest = last.get("audited_at") is None or (at is not None and at >= last["audited_at"])
        if newest and audit.get("audit_source") != "scale":
            last = audit
    return last, dates, warnings


def _latest(dates: Iterable[datetime | None]) -> datetime | None:
    return max((moment for moment in dates if moment), default=None)


def parse_callback(body: bytes, environment: str) -> Callback:
    """Parse the body of a callback, or a single task object as `GET /task/{id}` and exports give it.

    environment: live or test, that of the callback key. Raises InvalidCallback where the body is not JSON, no object, too deep, names
    neither a task nor a batch, or has a `task` that is no object; nothing else is refused.
    """
    outer = storable(_parse_repeated(body) or parse_json(body), body)
    if type(outer) is not dict:
        raise InvalidCallback(f"the body is {json_type_name(outer)}, not an object")
    envelope, warnings = load(ENVELOPE, outer)
    raw = envelope.get("task")
    if raw is None and outer.get("task") is not None:
        raise InvalidCallback(f"its task is {json_type_name(outer['task'])}, not an object")
    if raw is None and _is_task(outer):
        raw = outer
    task: TaskObject | None = None
    clock: datetime | None = None
    if raw is not None:
        task, clock, task_warnings = parse_task(raw)
        warnings += task_warnings
    task_id = envelope.get("task_id") or (task and task.task_id)
    if not task_id:
        return _batch(outer, environment, warnings)
    if task and task.task_id and task.task_id != task_id:
        warnings.append(f"task_id is {task_id!r}, task.task_id {task.task_id!r}: the first counts")
    status = envelope.get("status") or (task.status if task else None)
    response = _response(outer, raw)
    if raw is not outer:
        warnings += _dropped(outer, raw or {})
    if raw is not None and raw is not outer and outer.get("response") is not None:
        raw.pop("response", None)  # given twice; of 50,000 annotations one copy in memory is enough
    review = task.review_status if task else None
    if task and task.is_test:
        environment = "test"
    return Callback(
        environment, _event(status, response, review), clock, task_id, status, task, response, None, warnings
    )


def _is_task(body: dict[str, Any]) -> bool:
    """Return whether a body without `task` is the task object itself, of either API version."""
    return isinstance(body.get("type"), str) or (
        "task_id" in body and any(body.get(key) for key in TASK_SIGNS)
    )


def _dropped(outer: dict[str, Any], raw: dict[str, Any]) -> list[str]:
    """Warn of what is in the raw body alone, besides copies of the task's own values."""
    dropped = [
        key
        for key, value in outer.items()
        if key not in ENVELOPE_KEYS
        and not _is_outside_response(key)
        and value is not None
        and raw.get(key) != value
    ]
    warnings = []
    if dropped:
        keys = ", ".join(key[:60] for key in dropped[:MAX_LISTED])
        warnings.append(f"values that are in the raw body alone: {len(dropped)} ({keys})")
    inner = raw.get("response")
    if inner is not None and outer.get("response") not in (None, inner):
        warnings.append("task.response differs from response, which counts")
    return warnings


def _is_outside_response(key: str) -> bool:
    return key in RESULT_KEYS_OUTSIDE_RESPONSE or key.endswith("_reports")


def _response(outer: dict[str, Any], raw: dict[str, Any] | None) -> Any:
    """Return the response, merged with the keys that some task types keep in the task object."""
    response = outer.get("response")
    if response is None and raw is not None:
        response = raw.get("response")
    if response is None or type(response) is dict:
        parts = (outer,) if raw is None or raw is outer else (raw, outer)
        extra = {
            key: value for part in parts for key, value in part.items() if value and _is_outside_response(key)
        }
        if extra:
            return {**extra, **(response or {})}
    return ABSENT if response is None else response


def _event(status: str | None, response: Any, review: str | None) -> str:
    """Return the event. Completion, audit, recall and error share one envelope. Source: docs "Callbacks"."""
    if status in STATUS_EVENTS:
        return STATUS_EVENTS[status]
    if type(response) is dict and holds_error(response):
        return "error"
    return REVIEWS.get(review or "", "completed")


def holds_error(response: dict[str, Any]) -> bool:
    """Return whether a response is Scale's error response, which can come under any status.

    The second API version has a list `errors` of objects with type and message.
    """
    if response.get("error") not in (None, False, ""):
        return True
    errors = response.get("errors")
    return type(errors) is list and any(type(one) is dict and "message" in one for one in errors)


def _batch(body: dict[str, Any], environment: str, warnings: list[str]) -> Callback:
    """Parse a body without a task that names a batch. Its form is not published, so several are accepted."""
    inner = body.get("batch")
    values, batch_warnings = load(BATCH, {**body, **inner, "batch": inner} if type(inner) is dict else body)
    batch = values.get("batch") or values.get("batch_name")
    if not batch and not body.keys().isdisjoint(("project", "callback", "metadata", "status")):
        batch = values.get("name")
    if not batch:
        raise InvalidCallback("the body names no task_id and no batch")
    clock = _latest([values.get("updated_at"), values.get("completed_at")])
    return Callback(
        environment,
        "batch",
        clock,
        None,
        values.get("status"),
        None,
        ABSENT,
        batch,
        warnings + batch_warnings,
        values.get("project"),
        inner if type(inner) is dict else body,
    )


def response_digest(response: Any) -> str:
    """SHA-256 (hex) of a response, the same for any order of its keys and any spacing: the identity of a response version."""
    if response is ABSENT:
        return hashlib.sha256(b"").hexdigest()
    return digest(response)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ESCAPES = (b"\\u0000", b"\\ud", b"\\uD")


def storable(value: Any, body: bytes | None = None) -> Any:
    """Replace each NUL and lone surrogate in strings and keys by U+FFFD, because PostgreSQL stores neither.

    body: the raw bytes of the value. If they show that there is nothing to replace, the value is returned unchanged.
    """
    if body is None or b"\xed" in body or b"\x00" in body:  # raw surrogates; 16- and 32-bit encodings
        return _clean(value)
    return _clean(value) if b"\\" in body and any(escape in body for escape in _ESCAPES) else value


def _clean(value: Any) -> Any:
    if type(value) is str:
        return _UNSTORABLE.sub("\ufffd", value)
    if type(value) is list:
        return [_clean(item) for item in value]
    if type(value) is dict:
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
