"""The forms of single JSON fields, a marshmallow schema of them, and `load`, which keeps going where one is wrong.

Scale's documents and its live traffic differ, so a field of the wrong form costs that field and a warning, never the callback.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

from marshmallow import EXCLUDE, Schema, ValidationError, fields

KINDS: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
PRINTED_DATE = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d{1,9}))?)?)?"
    r"\s*(?:(Z|UTC|GMT)|([+-])(\d{2}):?(\d{2}))?",
    re.IGNORECASE,
)


MAX_WORD_CHARACTERS = 10_000
MAX_COORDINATE = 9e18
"""Beyond: no coordinate, and no JSON number that every reader takes. NaN fails the comparison too."""


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number of ordinary size. A boolean is none."""
    return type(value) in (int, float) and -MAX_COORDINATE < value < MAX_COORDINATE


def json_type_name(value: Any) -> str:
    """Return the name of a value's JSON type for a message: "a string", "null", "an object" …."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number" if -MAX_COORDINATE < value < MAX_COORDINATE else "not a finite number"
    return KINDS.get(type(value), type(value).__name__)


def parse_date(value: Any) -> datetime | None:
    """Parse a date as Scale prints it. Return an aware UTC time, or None.

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


class FunctionField(fields.Field[Any]):
    """A field that is one function: it gives the value, or raises ValidationError with the rest of a sentence.

    The function is called directly: marshmallow's validators and hooks around it, which no field here uses, would cost a
    third of reading a small callback.
    """

    def __init__(self, read: Callable[[Any], Any]) -> None:
        super().__init__(allow_none=True)
        self.read = read

    def deserialize(
        self, value: Any, attr: str | None = None, data: Mapping[str, Any] | None = None, **_: Any
    ) -> Any:
        """Return `read(value)`, or None for null."""
        return None if value is None else self.read(value)


def string(value: Any) -> str:
    """Return a string. Raises ValidationError for any other type."""
    if isinstance(value, str):
        return value
    raise ValidationError(f"is {json_type_name(value)}, not a string")


def word(value: Any) -> str:
    """Return a string that tasks are listed and grouped by. Raises ValidationError above MAX_WORD_CHARACTERS."""
    return _short(string(value))


def short_name(value: Any) -> str:
    """Read a name as `name` does. Raises ValidationError above MAX_WORD_CHARACTERS."""
    return _short(name(value))


def _short(text: str) -> str:
    if len(text) > MAX_WORD_CHARACTERS:
        raise ValidationError(f"has {len(text):,} characters, more than {MAX_WORD_CHARACTERS:,}")
    return text


def name(value: Any) -> str:
    """Read a name or an id: a string, an integer, or (second API version) an object with a name or an id."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = value.get("name") or value.get("id")
    if isinstance(value, str) or type(value) is int:
        return str(value)
    raise ValidationError(f"is {json_type_name(value)}, not a string")


def integer(value: Any) -> int:
    """Read an integer that a 32-bit column holds."""
    if type(value) in (int, float) and -(2**31) <= value < 2**31 and value == int(value):
        return int(value)
    raise ValidationError(f"is {json_type_name(value)}, not a whole number of 32 bits")


def boolean(value: Any) -> bool:
    """Return a boolean. Raises ValidationError for any other type."""
    if isinstance(value, bool):
        return value
    raise ValidationError(f"is {json_type_name(value)}, not a boolean")


def json_object(value: Any) -> dict[str, Any]:
    """Return an object. Raises ValidationError for any other type."""
    if isinstance(value, dict):
        return value
    raise ValidationError(f"is {json_type_name(value)}, not an object")


def json_list(value: Any) -> list[Any]:
    """Return a list. Raises ValidationError for any other type."""
    if isinstance(value, list):
        return value
    raise ValidationError(f"is {json_type_name(value)}, not a list")


def strings(value: Any) -> list[str]:
    """Read a list of strings; one string is a list of one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise ValidationError(f"is {json_type_name(value)}, not a list of strings")


def date(value: Any) -> datetime:
    """Return a date as an aware timestamp. Raises ValidationError for any other type or form."""
    moment = parse_date(value)
    if moment is None:
        raise ValidationError(
            f"is no date: {value[:40]!r}"
            if isinstance(value, str)
            else f"is {json_type_name(value)}, no date"
        )
    return moment


def schema(**reads: Callable[[Any], Any]) -> Schema:
    """Return a schema whose named fields are read by their functions. Null is accepted, unknown fields are ignored."""
    return Schema.from_dict({key: FunctionField(read) for key, read in reads.items()})(
        unknown=EXCLUDE, partial=True
    )


def load(form: Schema, data: dict[str, Any], where: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return the fields that have the right form, and a warning for each other one."""
    try:
        return form.load(data), []
    except ValidationError as error:
        messages = cast(dict[str, list[str]], error.messages)
        warnings = [f"{where}{key} {' and '.join(reasons)}" for key, reasons in messages.items()]
        return cast(dict[str, Any], error.valid_data), warnings
