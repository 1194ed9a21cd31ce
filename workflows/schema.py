"""The schema of a workflow file: one source for what `load` accepts, for editors (JSON Schema) and for the reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate, validates_schema

from workflows.crop import Padding
from workflows.expressions import (
    Expression,
    ExpressionError,
    compile_expression,
    nearest,
)
from workflows.workflow import STATES, ForEach, Reduce

NAME = re.compile(r"[a-z0-9-]+\Z")

# Marshmallow's words for what is wrong, in this language's.
_PLAIN = {
    "Missing data for required field.": "is required",
    "Field may not be null.": "is empty: give it a value, or leave the key out",
    "Invalid input type.": "expected a mapping",
    "Not a valid mapping type.": "expected a mapping",
    "Not a valid list.": "expected a list",
    "Not a valid string.": "expected text",
    "Not a valid integer.": "expected a whole number",
    "Not a valid boolean.": "expected true or false",
}


def flat(messages: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], str]]:
    """Marshmallow's nested messages as (path, sentence)."""
    if isinstance(messages, Mapping):
        return [
            found
            for key, inner in messages.items()
            for found in flat(inner, path if key == "_schema" else (*path, key))
        ]
    sentences = messages if isinstance(messages, list) else [messages]
    return [(path, _PLAIN.get(str(sentence), str(sentence))) for sentence in sentences]


class Section(Schema):
    """A mapping with known keys; an unknown one is named together with what may stand there."""

    class Meta:
        unknown = INCLUDE

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def refuse_unknown_keys(self, data: Any, original: Any, **_: Any) -> None:
        known = list(self.fields)
        unknown = [key for key in original if key not in known] if isinstance(original, Mapping) else []
        if unknown:
            raise ValidationError({key: [_unknown(key, known)] for key in unknown})


def _unknown(key: str, known: list[str]) -> str:
    if key == "on" and "after" in known:
        return "is called `after` here (YAML reads a bare `on` as true)"
    return f"is not known here{nearest(key, known)} (known: {', '.join(known)})"


class Text(fields.String):
    """Plain text."""


class Name(fields.Field[str]):
    """A workflow's or a step's name: it becomes a part of unique_ids, in which a dot parts the names."""

    json = {"type": "string", "pattern": "^[a-z0-9-]+$"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> str:
        if not isinstance(value, str) or not NAME.match(value):
            raise ValidationError(f"expected a name of a-z, 0-9 and -, not {value!r}")
        return value


class Words(fields.Field[tuple[str, ...]]):
    """One word or a list of words."""

    def __init__(self, *, choices: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = choices

    @property
    def json(self) -> dict[str, Any]:
        word: dict[str, Any] = {"type": "string", **({"enum": list(self.choices)} if self.choices else {})}
        return {"anyOf": [word, {"type": "array", "items": word, "minItems": 1}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> tuple[str, ...]:
        words = value if isinstance(value, list) else [value]
        for word in words:
            if not isinstance(word, str) or not word:
                raise ValidationError(f"expected text or a list of texts, not {word!r}")
            if self.choices and word not in self.choices:
                raise ValidationError(
                    f"expected one of {', '.join(self.choices)}, not {word!r}{nearest(word, self.choices)}"
                )
        if not words:
            raise ValidationError("expected text or a list of texts, not an empty list")
        return tuple(words)


class Condition(fields.Field[Expression]):
    """A JMESPath expression."""

    json = {"type": "string"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Expression:
        if not isinstance(value, str):
            raise ValidationError(
                f"expected a JMESPath expression such as length(annotations) > `0`, not {value!r}"
            )
        try:
            return compile_expression(value)
        except ExpressionError as error:
            raise ValidationError(str(error)) from None


class Params(fields.Field[Any]):
    """The request: a mapping with `${{ }}` values, or one whole `${{ }}` that gives a mapping. Compiled by `check`."""

    json = {"anyOf": [{"type": "object"}, {"type": "string", "pattern": r"^\s*\$\{\{"}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Any:
        if not isinstance(value, dict) and not (isinstance(value, str) and value.lstrip().startswith("${{")):
            raise ValidationError("expected a mapping: the body of the request to Scale")
        return value


class Each(fields.Field[ForEach]):
    """annotation, label, frame, or a JMESPath list."""

    KINDS = ("annotation", "label", "frame")
    json = {"anyOf": [{"enum": list(KINDS)}, {"type": "string"}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> ForEach:
        if not isinstance(value, str):
            raise ValidationError("expected annotation, label, frame or a JMESPath expression for a list")
        if value in self.KINDS:
            return ForEach(value)
        try:
            return ForEach("list", compile_expression(value))
        except ExpressionError as error:
            raise ValidationError(str(error)) from None


class Duration(fields.Field[int]):
    """90s, 30m, 12h, 7d: seconds."""

    SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    json = {"type": "string", "pattern": "^[1-9][0-9]*[smhd]$"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", str(value))
        if not found:
            raise ValidationError(f"expected a duration such as 90s, 30m, 12h or 7d, not {value!r}")
        return int(found[1]) * self.SECONDS[found[2]]


class Share(fields.Field[float]):
    """5%, 0.05, `2 of 3` or `1 in 20`: a share, more than 0 and at most 1."""

    json = {
        "anyOf": [
            {"type": "string", "pattern": r"^([0-9.]+ ?%|[0-9]+ (of|in) [0-9]+)$"},
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        ]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> float:
        share = 0.0
        if percent := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", str(value)):
            share = float(percent[1]) / 100
        elif (parts := re.fullmatch(r"([0-9]+) (?:of|in) ([1-9][0-9]*)", str(value))) is not None:
            share = int(parts[1]) / int(parts[2])
        elif isinstance(value, int | float) and not isinstance(value, bool):
            share = float(value)
        if not 0 < share <= 1:
            raise ValidationError(f"expected a share such as 5%, 2 of 3 or 0.05, not {value!r}")
        return share


class Count(fields.Field[int | None]):
    """A whole number, or `all`."""

    json = {"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 1}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> int | None:
        if value == "all":
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValidationError(f"expected all or a whole number (a share is a `quorum`), not {value!r}")
        return value


class PaddingField(fields.Field[Padding]):
    """20 (pixels) or 10% of the annotation's own size, on each side."""

    json = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^[0-9.]+ ?%$"}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Padding:
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return Padding(float(value), False)
        percent = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", str(value))
        if not percent:
            raise ValidationError(f"expected pixels such as 20, or a share such as 10%, not {value!r}")
        return Padding(float(percent[1]) / 100, True)


class ReduceField(fields.Field[Reduce]):
    """A reducer's name, or a mapping with `by` and the reducer's options."""

    json = {"anyOf": [{"type": "string"}, {"type": "object", "required": ["by"]}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Reduce:
        options = {"by": value} if isinstance(value, str) else value
        if not isinstance(options, dict) or not isinstance(options.get("by"), str):
            raise ValidationError("expected the name of a reducer, or a mapping with `by` and its options")
        return Reduce(options["by"], {key: option for key, option in options.items() if key != "by"})


class RetrySchema(Section):
    """What to do when a task of this step ends in an error."""

    retry = fields.Integer(
        strict=True,
        validate=validate.Range(1, 10, error="expected 1 to 10 retries"),
        metadata={"description": "How many times the request is sent again, as new tasks.", "example": 2},
    )
    params = Params(
        metadata={
            "description": "Fields that replace those of the first request; `task`, `error` and the rest are those of the task that failed.",
            "example": {"attachment": "${{ task.metadata.backup_url }}"},
        }
    )
    mirror = Words(metadata={"description": "As the step's own `mirror`.", "example": "attachment"})
    start = Name(
        metadata={
            "description": "The step that looks at the failed task instead. Its own `after` need not say so.",
            "example": "ask-elsewhere",
        }
    )

    @validates_schema
    def one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        if ("retry" in data) == ("start" in data):
            raise ValidationError("expected either `retry` or `start`")


class OnErrorField(fields.Field[dict[str, Any]]):
    """stop, or a mapping with `retry` or `start`."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> dict[str, Any]:
        if value == "stop":
            return {}
        if not isinstance(value, dict):
            raise ValidationError("expected stop, {retry: 2, …} or {start: step}")
        return dict(RetrySchema().load(value))

    @property
    def json(self) -> dict[str, Any]:
        return {"anyOf": [{"const": "stop"}, _object(RetrySchema())]}


class AfterSchema(Section):
    """Which results the step looks at. What is not said is not asked."""

    type = Words(metadata={"description": "Task type, or a list of them.", "example": "polygonannotation"})
    project = Words(
        metadata={"description": "Name of the task's project, or a list.", "example": "street-scenes"}
    )
    batch = Words(metadata={"description": "Name of the task's batch, or a list.", "example": "week-12"})
    tags = Words(metadata={"description": "Tags that the task must all have.", "example": ["night", "rain"]})
    metadata = fields.Dict(
        keys=fields.String(),
        metadata={
            "description": "Keys of the task's metadata and their values; a list means one of its values.",
            "example": {"city": ["Bern", "Basel"]},
        },
    )
    environment = fields.String(
        validate=validate.OneOf(("live", "test"), error="expected live or test, not {input!r}"),
        metadata={"description": "live or test.", "example": "live"},
    )
    state = Words(
        choices=STATES,
        load_default=("completed",),
        metadata={
            "description": "A level, not an event: `completed` (there is a current response without an error), `accepted`, `rejected`, `fixed` (the review says so), `error`, `recalled`. A list means any of them.",
            "example": "accepted",
        },
    )
    step = Words(
        metadata={
            "description": "An earlier step of this workflow whose tasks are looked at, or a list. A step that names itself takes its own results too.",
            "example": "detect",
        }
    )

    @validates_schema(skip_on_field_errors=True)
    def asks_for_something(self, data: dict[str, Any], **_: Any) -> None:
        if not any(data.get(key) for key in ("type", "project", "batch", "tags", "metadata", "step")):
            raise ValidationError(
                "would take every task: name a type, project, batch, tags, metadata or step"
            )


class CreateSchema(Section):
    """The task to create."""

    type = fields.String(
        required=True, metadata={"description": "Task type at Scale.", "example": "annotation"}
    )
    params = Params(
        required=True,
        metadata={
            "description": "The whole body of the request; `callback_url` and `unique_id` are added by the service.",
            "example": {"attachment": "${{ task.params.attachment }}"},
        },
    )


class CropSchema(Section):
    """The part of the image around the annotation takes the place of `attachment`."""

    padding = PaddingField(
        load_default=Padding(0, False),
        metadata={
            "description": "Added on each side: pixels, or a share of the annotation's own width and height.",
            "example": "10%",
        },
    )
    min_size = fields.Integer(
        strict=True,
        load_default=1,
        validate=validate.Range(1, 100_000, error="expected pixels, 1 or more"),
        metadata={
            "description": "Least width and height in pixels; a smaller crop grows around its centre.",
            "example": 64,
        },
    )


class JoinSchema(Section):
    """Look at the tasks of the step named in `after` together, as `results`, once for each source task."""

    wait = Count(
        load_default=None,
        metadata={"description": "`all`, or that many results.", "example": 2, "default": "all"},
    )
    quorum = Share(
        metadata={"description": "Instead of `wait`: that share of the children.", "example": "2 of 3"}
    )
    within = Duration(
        metadata={
            "description": "Time from the fan-out's planning to the deadline; none by default.",
            "example": "7d",
        }
    )
    on_deadline = fields.String(
        load_default="hold",
        validate=validate.OneOf(
            ("continue", "hold", "stop"), error="expected continue, hold or stop, not {input!r}"
        ),
        metadata={
            "description": "With the results at hand: `continue`, or plan as held (`hold`), or `stop`. The same when what is waited for can't come any more.",
            "example": "continue",
        },
    )
    over = fields.String(
        load_default="all",
        validate=validate.OneOf(("all", "copies"), error="expected all or copies, not {input!r}"),
        metadata={
            "description": "`all` children of a source task together, or the `copies` of each annotation (label, frame) by themselves.",
            "example": "copies",
        },
    )
    reduce = ReduceField(
        metadata={"description": "A reducer whose outcome is `reduced`.", "example": "majority"}
    )

    @validates_schema
    def wait_or_quorum(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("quorum") and data.get("wait"):
            raise ValidationError("expected either `wait` or `quorum`")


def _limit(description: str, example: int) -> fields.Integer:
    return fields.Integer(
        strict=True,
        validate=validate.Range(1, error="expected a whole number, 1 or more"),
        metadata={"description": description, "example": example},
    )


class LimitsSchema(Section):
    """Beyond a limit, follow-ups are planned as held."""

    per_day = _limit(
        "Follow-ups a day (UTC). At a step it counts that step's own, and takes the place of the guard of 10,000.",
        500,
    )
    total = _limit("Follow-ups ever.", 20_000)
    depth = _limit(
        "How far from the first task: a follow-up of a task from outside has depth 1. 5 unless said otherwise.",
        3,
    )


class StepSchema(Section):
    """One step: which results it looks at, and which tasks it asks for."""

    description = Text(metadata={"description": "For people.", "example": "Boxes from polygons"})
    after = fields.Nested(
        AfterSchema,
        metadata={
            "description": "Which results the step looks at. Required, except for a step that only an `on_error` starts.",
            "example": {"type": "polygonannotation", "state": "accepted"},
        },
    )
    when = Condition(
        metadata={"description": "A condition on the result.", "example": "length(annotations) > `0`"}
    )
    for_each = Each(
        metadata={
            "description": "One task each: `annotation`, `label`, `frame`, or a JMESPath list (its elements are `item`).",
            "example": "annotation",
        }
    )
    where = Condition(metadata={"description": "Which of them.", "example": "annotation.label == 'car'"})
    crop = fields.Nested(
        CropSchema,
        metadata={
            "description": "Cut the image around the annotation.",
            "example": {"padding": "10%", "min_size": 64},
        },
    )
    mirror = Words(
        metadata={
            "description": "Fields of the request whose file is copied into the artifact store; Scale gets a signed address of the copy.",
            "example": "attachment",
        }
    )
    join = fields.Nested(
        JoinSchema,
        metadata={
            "description": "Wait for the tasks of the step in `after` and look at them together.",
            "example": {"quorum": "2 of 3", "within": "7d", "reduce": "majority"},
        },
    )
    copies = fields.Integer(
        strict=True,
        validate=validate.Range(1, 100, error="expected 1 to 100 copies"),
        metadata={"description": "The same task that many times.", "example": 3},
    )
    sample = Share(
        metadata={
            "description": "Only that share of the source tasks; which ones is fixed by their ids.",
            "example": "5%",
        }
    )
    repeat = fields.String(
        validate=validate.Equal("each_response", error="expected each_response"),
        metadata={
            "description": "`each_response`: again for every new response of a source task. Otherwise once.",
            "example": "each_response",
        },
    )
    hold = fields.Boolean(
        truthy={True},
        falsy={False},
        load_default=False,
        metadata={"description": "Every follow-up waits for a person's approval.", "example": True},
    )
    limits = fields.Nested(
        LimitsSchema, metadata={"description": "Limits of this step.", "example": {"per_day": 500}}
    )
    dry_run = fields.Boolean(
        truthy={True},
        falsy={False},
        load_default=False,
        metadata={
            "description": "Follow-ups are recorded as `skipped`, and nothing is created.",
            "example": True,
        },
    )
    on_error = OnErrorField(
        metadata={
            "description": "When a task of this step ends in an error: `stop`, `retry` or `start` another step.",
            "default": "stop",
            "example": {"retry": 2, "mirror": "attachment"},
        }
    )
    on_recall = fields.String(
        load_default="keep",
        validate=validate.OneOf(("keep", "cancel"), error="expected keep or cancel, not {input!r}"),
        metadata={
            "description": "When Scale recalls a source task: `keep` its follow-ups, or `cancel` those that are not completed.",
            "example": "cancel",
        },
    )
    create = fields.Nested(
        CreateSchema,
        metadata={
            "description": "The task to create.",
            "example": {"type": "annotation", "params": {"attachment": "${{ task.params.attachment }}"}},
        },
    )
    python = fields.String(
        validate=validate.Regexp(
            r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z", error="expected module:function, not {input!r}"
        ),
        metadata={
            "description": "Instead of `create`: a function from the view of one result to a list of tasks.",
            "example": "config.handlers:ask_twice",
        },
    )


class ExpectSchema(Section):
    """One follow-up; what is not said may be anything."""

    step = Text(metadata={"description": "The step that asks for it.", "example": "boxes"})
    type = Text(metadata={"description": "Task type.", "example": "annotation"})
    state = fields.String(
        validate=validate.OneOf(
            ("planned", "held", "skipped"), error="expected planned, held or skipped, not {input!r}"
        ),
        metadata={"description": "planned, held or skipped.", "example": "planned"},
    )
    unique_id = Text(
        metadata={
            "description": "Its identity.",
            "example": "polygons-to-boxes.boxes.5774cc78b01249ab09f089dd",
        }
    )
    reason = Text(
        allow_none=True, metadata={"description": "Why it is held or skipped.", "example": "dry run"}
    )
    params = fields.Dict(
        keys=fields.String(),
        metadata={"description": "Fields of the request that must be so.", "example": {"with_labels": True}},
    )


class ExampleSchema(Section):
    """A payload, and the requests that must follow from it."""

    name = Text(
        load_default="",
        metadata={"description": "What the example shows.", "example": "Two polygons become two layers"},
    )
    given = fields.Raw(
        required=True,
        metadata={
            "description": "A callback body, or the path of one beside this file; in a mapping with `payload` also `step` (which step made the task), `environment`, `depth`, `results`.",
            "example": "payloads/polygons.json",
        },
    )
    expect = fields.List(
        fields.Nested(ExpectSchema),
        required=True,
        metadata={
            "description": "The follow-ups, in order.",
            "example": [{"step": "boxes", "type": "annotation"}],
        },
    )


class WorkflowSchema(Section):
    """A workflow file."""

    workflow = Name(
        required=True, metadata={"description": "Name of the workflow.", "example": "polygons-to-boxes"}
    )
    description = Text(metadata={"description": "For people.", "example": "Boxes from polygons"})
    limits = fields.Nested(
        LimitsSchema,
        metadata={"description": "Limits of all steps together.", "example": {"per_day": 2000, "depth": 3}},
    )
    steps = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={"description": "Steps by name (`a-z`, `0-9`, `-`).", "steps": True},
    )
    examples = fields.List(
        fields.Nested(ExampleSchema),
        metadata={"description": "What `flask workflows test` tries.", "example": []},
    )


# The same schema for editors.


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a workflow file, made from the fields above."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Weighbridge workflow",
        **_object(WorkflowSchema()),
    }


def _object(schema: Schema) -> dict[str, Any]:
    required = [name for name, field in schema.fields.items() if field.required]
    return {
        "type": "object",
        **({"description": schema.__doc__} if schema.__doc__ else {}),
        "properties": {name: _property(field) for name, field in schema.fields.items()},
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _property(field: fields.Field[Any]) -> dict[str, Any]:
    metadata = field.metadata
    return {
        **_type(field),
        **({"description": metadata["description"]} if "description" in metadata else {}),
        **({"examples": [metadata["example"]]} if metadata.get("example") not in (None, []) else {}),
    }


def _type(field: fields.Field[Any]) -> dict[str, Any]:
    own = getattr(field, "json", None)
    if own is not None:
        return dict(own)
    match field:
        case fields.Nested():
            return _object(field.schema)
        case fields.List():
            return {"type": "array", "items": _type(field.inner)}
        case fields.Dict():
            if field.metadata.get("steps"):
                return {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": Name.json,
                    "additionalProperties": _object(StepSchema()),
                }
            return {"type": "object"}
        case fields.Boolean():
            return {"type": "boolean"}
        case fields.Integer():
            return {"type": "integer", **_bounds(field)}
        case fields.String():
            return {"type": "string", **_bounds(field)}
        case _:
            return {}


def _bounds(field: fields.Field[Any]) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for validator in field.validators:
        match validator:
            case validate.Range():
                bounds |= {"minimum": validator.min} | (
                    {"maximum": validator.max} if validator.max is not None else {}
                )
            case validate.OneOf():
                bounds["enum"] = list(validator.choices)
            case validate.Equal():
                bounds["const"] = validator.comparable
            case validate.Regexp():
                bounds["pattern"] = "^" + str(validator.regex.pattern).replace(r"\Z", "$")
    return bounds
