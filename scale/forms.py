"""The forms of single JSON fields, as marshmallow fields, and `load`, which keeps going where one is wrong.

Scale's documents and its live traffic differ, so a field of the wrong form costs that field and a flag, never the callback.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields

PRINTED_DATE = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d{1,9}))?)?)?"
    r"\s*(?:(Z|UTC|GMT)|([+-])(\d{2}):?(\d{2}))?",
    re.IGNORECASE,
)


def kind(value: Any) -> str:
    """What a JSON value is, in words for a flag: "a string", "null", "an object" …"""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number" if -9e18 < value < 9e18 else "not a finite number"
    return {str: "a string", list: "a list", dict: "an object"}.get(type(value), type(value).__name__)


def parse_date(value: Any) -> datetime | None:
    """An aware UTC time from a date as Scale prints it, or None.

    Documents and traffic show ISO 8601 with milliseconds and Z, an unpadded month ("2016-9-03T07:38:32.368Z"), and bare
    dates. A time without a zone is UTC. Source: docs "Tasks", "Callbacks".
    """
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        found = PRINTED_DATE.fullmatch(value.strip())
        if not found:
            return None
        year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = found.groups()
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        try:
            moment = datetime(
                int(year),
                int(month),
                int(day),
                int(hour or 0),
                int(minute or 0),
                int(second or 0),
                int((fraction or "0").ljust(6, "0")[:6]),
                tzinfo=timezone(-offset if sign == "-" else offset),
            )
        except ValueError:
            return None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None


class Text(fields.Field[str]):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> str:
        if isinstance(value, str):
            return value
        raise ValidationError(f"is {kind(value)}, not a string")


class Name(fields.Field[str]):
    """A name or an id: a string, a number, or (second API version) an object that has a name or an id."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, dict):
            value = value.get("name") or value.get("id")
            if isinstance(value, str):
                return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise ValidationError(f"is {kind(value)}, not a string")


class Whole(fields.Field[int]):
    """A whole number that a 32-bit column holds."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> int:
        if isinstance(value, int | float) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
            if value == int(value):
                return int(value)
        raise ValidationError(f"is {kind(value)}, not a whole number of 32 bits")


class Truth(fields.Field[bool]):
    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> bool:
        if isinstance(value, bool):
            return value
        raise ValidationError(f"is {kind(value)}, not a boolean")


class Object(fields.Field[dict[str, Any]]):
    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        raise ValidationError(f"is {kind(value)}, not an object")


class List(fields.Field[list[Any]]):
    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> list[Any]:
        if isinstance(value, list):
            return value
        raise ValidationError(f"is {kind(value)}, not a list")


class Texts(fields.Field[list[str]]):
    """A list of strings; one string is a list of one."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise ValidationError(f"is {kind(value)}, not a list of strings")


class Date(fields.Field[datetime]):
    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> datetime:
        moment = parse_date(value)
        if moment is None:
            raise ValidationError(
                f"is no date: {value[:40]!r}" if isinstance(value, str) else f"is {kind(value)}, no date"
            )
        return moment


def schema(**forms: fields.Field[Any]) -> Schema:
    """A schema that is made once, takes null for every field and leaves unknown ones where they are."""
    for form in forms.values():
        form.allow_none = True
    return Schema.from_dict(forms)(unknown=EXCLUDE, partial=True)  # type: ignore[arg-type]


def load(form: Schema, data: dict[str, Any], where: str = "") -> tuple[dict[str, Any], list[str]]:
    """The fields that have the right form, and a sentence for each that has not."""
    try:
        return form.load(data), []
    except ValidationError as error:
        flags = [f"{where}{name} {' and '.join(said)}" for name, said in error.normalized_messages().items()]
        return error.valid_data or {}, flags  # type: ignore[return-value]
