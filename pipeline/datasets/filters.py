"""Which tasks a dataset version takes: the API's filters as a value, and whether a task matches them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from pipeline.db.ids import format_timestamp, parse_timestamp
from scale.environments import ENVIRONMENTS


class Unusable(Exception):
    """Raised when a name, a filter, a split or a moment cannot be used. args[0] says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Filters:
    """A task matches if each field that is not empty names a value of it. Several values of one field mean "or"."""

    type: tuple[str, ...] = ()
    project: tuple[str, ...] = ()
    batch: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    environment: tuple[str, ...] = ("live",)
    status: tuple[str, ...] = ("completed",)
    review: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    """Of an annotation that the task has."""
    workflow: tuple[str, ...] = ()
    step: tuple[str, ...] = ()
    """Of the follow-up that created the task."""
    since: datetime | None = None
    """Scale changed the task then or later."""
    until: datetime | None = None
    """Scale changed the task earlier."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Key and value of the task's metadata; all of them have to match."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields that are set: a word for one value, a list for several, an object for metadata."""
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, datetime):
                found[field.name] = format_timestamp(value)
            elif field.name == "metadata" and value:
                found["metadata"] = dict(value)
            elif value:
                found[field.name] = value[0] if len(value) == 1 else list(value)
        return found


WORDS = frozenset(("type", "status", "review", "environment"))
"""Fields whose values never hold a comma: `a,b` means two of them."""
CHOICES = {"environment": ENVIRONMENTS}


def parse_filters(given: Mapping[str, Any]) -> Filters:
    """Return filters from words, lists of words and an object `metadata`; fields that are None or empty count as absent.

    Raises Unusable.
    """
    known = {field.name for field in fields(Filters)}
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise Unusable(f"There is no filter {name}. Filters are {', '.join(sorted(known))}.")
        if value is None or value in ("", [], (), {}):
            continue
        if name in ("since", "until"):
            made[name] = _moment(name, value)
        elif name == "metadata":
            made[name] = _metadata(value)
        else:
            made[name] = _words(name, value)
    return Filters(**made)


def _words(name: str, value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
        raise Unusable(f"The filter {name} takes a word or a list of words.")
    if name in WORDS:
        items = [part.strip() for item in items for part in item.split(",") if part.strip()]
    for item in items:
        check_text(f"The filter {name}", item)
    for item in items:
        if item not in CHOICES.get(name, (item,)):
            raise Unusable(f"{item} is no {name}; take {' or '.join(CHOICES[name])}.")
    return tuple(sorted(set(items)))


def check_text(what: str, text: str) -> None:
    """Raise Unusable for text that no database stores: NUL characters and halves of surrogate pairs."""
    if re.search("[\0\ud800-\udfff]", text):
        raise Unusable(f"{what} holds a NUL character or half a surrogate pair; nothing that is stored does.")


def _metadata(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise Unusable("The filter metadata takes an object of keys and values.")
    pairs = tuple(sorted((str(key), _as_text(item)) for key, item in value.items()))
    for pair in pairs:
        check_text("The filter metadata", "".join(pair))
    return pairs


def _moment(name: str, value: Any) -> datetime:
    try:
        return parse_timestamp(value.isoformat() if isinstance(value, datetime) else value)
    except (TypeError, ValueError, OverflowError):
        raise Unusable(f"{value!r} is no moment for {name}; write 2026-01-31T09:30:00Z.") from None


def _as_text(value: Any) -> str:
    """Return a value of metadata as a person writes it on a command line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "null" if value is None else str(value)


def matches(task: Mapping[str, Any], filters: Filters) -> bool:
    """Return whether a task's columns match; `label`, `workflow` and `step` need other tables and are left to the caller."""
    for name, column in (("type", "type"), ("project", "project"), ("batch", "batch"), ("status", "status"),
                         ("environment", "environment"), ("review", "review_status")):  # fmt: skip
        if (wanted := getattr(filters, name)) and task[column] not in wanted:
            return False
    if filters.tag and not _any_in(task["tags"], filters.tag):
        return False
    changed = next(
        (task[name] for name in ("updated_at", "completed_at", "created_at", "clock") if task[name]), None
    )
    if filters.since is not None and (changed is None or changed < filters.since):
        return False
    if filters.until is not None and (changed is None or changed >= filters.until):
        return False
    metadata = task["metadata"] or {}
    return all(key in metadata and _as_text(metadata[key]) == value for key, value in filters.metadata)


def _any_in(tags: Any, wanted: Iterable[str]) -> bool:
    return isinstance(tags, list) and any(tag in tags for tag in wanted)
