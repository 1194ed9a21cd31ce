"""What can be known of a workflow before it costs money: names, circles, and what Scale's parameter tables refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from workflows.expressions import (
    FAN_OUT_ROOTS,
    JOIN_ROOTS,
    ROOTS,
    Expression,
    Template,
    expressions_in,
    nearest,
)

Path = tuple[str | int, ...]
Fields = Mapping[str, Any]

# Longest unique_id at Scale, and what stands in one beside the two names: a task_id of 24, the uuid of an annotation, the digest of a response.
LONGEST = 120


class Finding(NamedTuple):
    path: Path
    message: str
    warning: bool = False
    line: int | None = None


def check(name: str, steps: Mapping[str, Fields], file: str) -> list[Finding]:
    """Findings beyond the schema. `steps` are the fields that the schema took; what it refused is not there."""
    found: list[Finding] = []
    for step, fields in steps.items():
        at = ("steps", step)
        for inner, message in _step(name, step, fields, steps):
            found.append(Finding((*at, *inner), message))
    return found


def _step(name: str, step: str, fields: Fields, steps: Mapping[str, Fields]) -> Iterator[tuple[Path, str]]:
    after = fields.get("after") or {}
    for other in after.get("step", ()):
        if other not in steps:
            yield ("after", "step"), f"there is no step {other!r}{nearest(other, steps)}"
    yield from _names(fields)
    params = (fields.get("create") or {}).get("params")
    if params is not None:
        yield from _params(params)


def _names(fields: Fields) -> Iterator[tuple[Path, str]]:
    """Names that expressions ask for, and that the view of this step does not have."""
    known = list(ROOTS)
    each = fields.get("for_each")
    if each is not None:
        known += ["item", {"list": "item"}.get(each.kind, each.kind)]
    if fields.get("crop") is not None:
        known.append("crop")
    if fields.get("copies") is not None:
        known.append("copy")
    if fields.get("join") is not None:
        known += JOIN_ROOTS
    for path, expression in _expressions(fields):
        early = path[0] in ("when", "for_each") and fields.get("join") is None
        for word in sorted(expression.names):
            if word not in known or (early and word in FAN_OUT_ROOTS):
                yield path, f"`{expression.source}`: {_unknown(word, known)}"


def _unknown(word: str, known: list[str]) -> str:
    if word in FAN_OUT_ROOTS:
        return f"`{word}` is only there in a step with {_GIVEN_BY[word]}, and not in its `when`"
    if word in JOIN_ROOTS:
        return f"`{word}` is only there in a step with `join`"
    return f"there is no `{word}` in the view of a result{nearest(word, known)} (there is {', '.join(known)})"


_GIVEN_BY = {
    "annotation": "`for_each: annotation`",
    "label": "`for_each: label`",
    "frame": "`for_each: frame`",
    "item": "`for_each`",
    "crop": "`crop`",
    "copy": "`copies`",
}


def _expressions(fields: Fields) -> Iterator[tuple[Path, Expression]]:
    for key in ("when", "where"):
        if isinstance(fields.get(key), Expression):
            yield (key,), fields[key]
    each = fields.get("for_each")
    if each is not None and each.list is not None:
        yield ("for_each",), each.list
    params: Template | None = (fields.get("create") or {}).get("params")
    if params is not None:
        yield from ((("create", "params", *path), expression) for path, expression in expressions_in(params))


_ADDED = {
    "callback_url": "is added by the service: leave it out",
    "unique_id": "is added by the service: leave it out",
    "clear_unique_id_on_error": "would let a repeat pay again: leave it out",
}


def _params(params: Template) -> Iterator[tuple[Path, str]]:
    for key, _ in getattr(params, "items", ()):
        if key in _ADDED:
            yield ("create", "params", key), _ADDED[key]
