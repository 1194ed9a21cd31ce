"""marshmallow fields for the values of a workflow file. sections.py combines them into the schema of a file.

Each field class has two attributes in addition to its validation: `label` is its type in the reference, `json_schema` is its
JSON Schema for editors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validate

from workflows.definition.crops import Padding
from workflows.definition.expressions import Expression, ExpressionError, compile_expression, suggestion
from workflows.definition.model import ForEach, Reduce
from workflows.definition.money import MAX_AMOUNT, Money, parse_money
from workflows.definition.reducers import REDUCERS

NAME_PATTERN = re.compile(r"[a-z0-9-]+\Z")
MAX_COUNT = 2**31 - 1
"""The largest value of a counter column in the database."""

# marshmallow's messages, in the words of this language.
_MESSAGES = {
    "Missing data for required field.": "is required",
    "Field may not be null.": "has no value; set a value or remove the key",
    "Invalid input type.": "expected a mapping",
    "Not a valid mapping type.": "expected a mapping",
    "Not a valid list.": "expected a list",
    "Not a valid string.": "expected text",
    "Not a valid integer.": "expected a whole number",
    "Invalid type.": "expected a list",
}

Path = tuple[str | int, ...]


def flatten_messages(messages: Any, path: Path = ()) -> list[tuple[Path, str]]:
    """Return marshmallow's nested messages as (path, message) pairs."""
    if isinstance(messages, Mapping):
        return [
            pair
            for key, inner in messages.items()
            for pair in flatten_messages(inner, path if key == "_schema" else (*path, key))
        ]
    texts = messages if isinstance(messages, list) else [messages]
    return [(path, _MESSAGES.get(str(text), str(text))) for text in texts]


def doc(description: str, example: Any = None, default: str | None = None) -> dict[str, Any]:
    """Return the metadata of a key: its description, an example, and its default where load_default does not show it."""
    examples = {} if example is None else {"examples": [example]}
    return {"description": description, **examples, **({"shown_default": default} if default else {})}


class NameField(fields.Field[str]):
    """Name of a workflow or a step."""

    label = "name of `a-z`, `0-9` and `-`"
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": "^[a-z0-9-]+$"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> str:
        if not isinstance(value, str) or not NAME_PATTERN.match(value):
            raise ValidationError(f"expected a name of a-z, 0-9 and -, not {value!r}")
        return value


class StringOrList(fields.Field[tuple[str, ...]]):
    """One text or a list of texts, loaded as a tuple; `choices` limits them."""

    label = "text, or a list of texts"

    def __init__(self, *, choices: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = choices

    @property
    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of one text or a non-empty list of them."""
        choices = {"enum": list(self.choices)} if self.choices else {}
        text: dict[str, Any] = {"type": "string", "minLength": 1, **choices}
        return {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> tuple[str, ...]:
        texts = value if isinstance(value, list) else [value]
        for text in texts:
            if not isinstance(text, str) or not text:
                raise ValidationError(f"expected text or a list of texts, not {text!r}")
            if self.choices and text not in self.choices:
                known = ", ".join(self.choices)
                raise ValidationError(
                    f"expected one of {known}, not {text!r}{suggestion(text, self.choices)}"
                )
        if not texts:
            raise ValidationError("expected text or a list of texts, not an empty list")
        return tuple(texts)


class ExpressionField(fields.Field[Expression]):
    """A condition, compiled."""

    label = "JMESPath expression"
    json_schema: ClassVar[dict[str, Any]] = {"type": "string"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Expression:
        if not isinstance(value, str):
            raise ValidationError(
                f"expected a JMESPath expression such as length(annotations) > `0`, not {value!r}"
            )
        try:
            return compile_expression(value)
        except ExpressionError as error:
            raise ValidationError(str(error)) from None


class TemplateField(fields.Field[Any]):
    """The parameters of a request, unchanged: validation/ compiles them, so that it reports every error in them."""

    label = "mapping with `${{ }}` values, or one `${{ }}`"
    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [{"type": "object"}, {"type": "string", "pattern": r"^\s*\$\{\{"}]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Any:
        if not isinstance(value, dict) and not (isinstance(value, str) and value.lstrip().startswith("${{")):
            raise ValidationError("expected a mapping: the body of the request to Scale")
        return value


class ForEachField(fields.Field[ForEach]):
    """The elements of a fan-out."""

    KINDS = ("annotation", "label", "frame")
    label = "`annotation`, `label`, `frame`, or a JMESPath expression for a list"
    json_schema: ClassVar[dict[str, Any]] = {"anyOf": [{"enum": list(KINDS)}, {"type": "string"}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> ForEach:
        if not isinstance(value, str):
            raise ValidationError("expected annotation, label, frame or a JMESPath expression for a list")
        if value in self.KINDS:
            return ForEach(value)
        try:
            return ForEach("list", compile_expression(value))
        except ExpressionError as error:
            raise ValidationError(str(error)) from None


class DurationField(fields.Field[int]):
    """A duration, loaded as seconds; ten years at most."""

    SECONDS: ClassVar[dict[str, int]] = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    MAX_SECONDS = 3650 * 86400
    label = "duration: `90s`, `30m`, `12h`, `7d`"
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": "^[1-9][0-9]{0,8}[smhd]$"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", str(value))
        if not found:
            raise ValidationError(f"expected a duration such as 90s, 30m, 12h or 7d, not {value!r}")
        seconds = int(found[1]) * self.SECONDS[found[2]]
        if seconds > self.MAX_SECONDS:
            raise ValidationError(f"expected at most ten years (3650d), not {value!r}")
        return seconds


class FractionField(fields.Field[float]):
    """A fraction greater than 0 and at most 1."""

    label = "fraction: `5%`, `0.05`, `2 of 3`"
    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {
                "type": "string",
                "pattern": r"^((?=.*[1-9])(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?) ?%|[1-9][0-9]{0,8} (of|in) [1-9][0-9]{0,8})$",
            },
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        ]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> float:
        fraction = _fraction(value)
        if not 0 < fraction <= 1:
            raise ValidationError(f"expected a fraction such as 5%, 2 of 3 or 0.05, not {value!r}")
        return fraction


def _fraction(value: Any) -> float:
    """Return the number that `5%`, `2 of 3` or 0.05 means; 0 for anything else."""
    if percent := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%", str(value)):
        return float(percent[1]) / 100
    if parts := re.fullmatch(r"([0-9]{1,9}) (?:of|in) ([1-9][0-9]{0,8})", str(value)):
        return int(parts[1]) / int(parts[2])
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


class CountField(fields.Field[int | None]):
    """A number of results; None means all."""

    label = "whole number, or `all`"
    json_schema: ClassVar[dict[str, Any]] = {"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 1}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> int | None:
        if value == "all":
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValidationError(
                f"expected all or a whole number, not {value!r}; write a fraction as `quorum`"
            )
        return value


class CopiesField(fields.Field[int | list[Any]]):
    """A number of equal tasks, or what each of several tasks changes in the request."""

    MAX = 100
    label = "whole number, or a list of mappings with `${{ }}` values"
    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": MAX},
            {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": MAX},
        ]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> int | list[Any]:
        number = len(value) if isinstance(value, list) else value
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= self.MAX:
            raise ValidationError(
                f"expected a whole number from 1 to {self.MAX}, or a list of 1 to {self.MAX} mappings"
            )
        if isinstance(value, list) and not all(isinstance(one, dict) for one in value):
            raise ValidationError(
                "expected a list of mappings: the fields of the request that each copy changes"
            )
        return value  # type: ignore[no-any-return]


class LimitField(fields.Field[tuple[int | Money, ...]]):
    """A number of tasks, an amount of money, or both as a list."""

    _one: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"type": "integer", "minimum": 1},
            {
                "type": "string",
                "pattern": r"^([$€£] ?[0-9]+(\.[0-9]{1,6})?|[0-9]+(\.[0-9]{1,6})? ?[A-Z]{3})$",
            },
        ]
    }
    label = "whole number, an amount such as `$200` or `200 USD`, or a list of both"
    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [*_one["anyOf"], {"type": "array", "items": _one, "minItems": 1, "maxItems": 2}]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> tuple[int | Money, ...]:
        found = tuple(_limit(one) for one in (value if isinstance(value, list) else [value]))
        if not found or len({type(one) for one in found}) < len(found):
            raise ValidationError("expected one number of tasks, one amount, or a list of one each")
        return found


def _limit(value: Any) -> int | Money:
    if isinstance(value, str) and (money := parse_money(value)) and 0 < money.amount <= MAX_AMOUNT:
        return money
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_COUNT:
        return value
    raise ValidationError(
        f"expected a whole number from 1 to {MAX_COUNT:,} or an amount such as $200 or 200 USD, not {value!r}"
    )


class PaddingField(fields.Field[Padding]):
    """The margin of a crop."""

    label = "pixels, or a percentage such as `10%`"
    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 100_000},
            {"type": "string", "pattern": r"^[0-9]{1,4}(\.[0-9]{1,9})? ?%$"},
        ]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Padding:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100_000:
            return Padding(float(value), False)
        percent = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,9})?) ?%", str(value))
        if not percent:
            raise ValidationError(f"expected pixels such as 20, or a percentage such as 10%, not {value!r}")
        return Padding(float(percent[1]) / 100, True)


class ReducerField(fields.Field[Reduce]):
    """A reducer and its options; validation/ checks that they exist."""

    _by: ClassVar[dict[str, Any]] = {"enum": [known.name for known in REDUCERS]}
    label = "name of a reducer, or a mapping with `by` and its options"
    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [_by, {"type": "object", "properties": {"by": _by}, "required": ["by"]}]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Reduce:
        options = {"by": value} if isinstance(value, str) else value
        if not isinstance(options, dict) or not isinstance(options.get("by"), str):
            raise ValidationError("expected the name of a reducer, or a mapping with `by` and its options")
        return Reduce(options["by"], {key: option for key, option in options.items() if key != "by"})


class BooleanField(fields.Field[bool]):
    """True or false; unlike marshmallow's own field it accepts no text."""

    label = "`true`, `false`"
    json_schema: ClassVar[dict[str, Any]] = {"type": "boolean"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError(f"expected true or false, not {value!r}")
        return value


def choice(*words: str, **kwargs: Any) -> fields.String:
    """Return a field that accepts one of `words`."""
    message = f"expected {', '.join(words[:-1])} or {words[-1]}, not {{input!r}}"
    return fields.String(validate=validate.OneOf(words, error=message), **kwargs)


def integer(low: int, high: int = MAX_COUNT, **kwargs: Any) -> fields.Integer:
    """Return a field that accepts a whole number from `low` to `high`."""
    message = f"expected a whole number from {low} to {high:,}"
    return fields.Integer(strict=True, validate=validate.Range(low, high, error=message), **kwargs)
