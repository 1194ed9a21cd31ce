"""The schema of a workflow file: the one source of what `load` takes, of the JSON Schema for editors and of the reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate, validates_schema

from workflows.definition.crops import Padding
from workflows.definition.expressions import Expression, ExpressionError, compile_expression, suggestion
from workflows.definition.model import STATES, ForEach, Reduce
from workflows.definition.reducers import REDUCERS

NAME_PATTERN = re.compile(r"[a-z0-9-]+\Z")

# Marshmallow's words for what is wrong, in this language's.
_PLAIN = {
    "Missing data for required field.": "is required",
    "Field may not be null.": "is empty: give it a value, or leave the key out",
    "Invalid input type.": "expected a mapping",
    "Not a valid mapping type.": "expected a mapping",
    "Not a valid list.": "expected a list",
    "Not a valid string.": "expected text",
    "Not a valid integer.": "expected a whole number",
    "Invalid type.": "expected a list",
}

Path = tuple[str | int, ...]


def flatten_messages(messages: Any, path: Path = ()) -> list[tuple[Path, str]]:
    """Marshmallow's nested messages as (path, sentence)."""
    if isinstance(messages, Mapping):
        return [
            found
            for key, inner in messages.items()
            for found in flatten_messages(inner, path if key == "_schema" else (*path, key))
        ]
    sentences = messages if isinstance(messages, list) else [messages]
    return [(path, _PLAIN.get(str(sentence), str(sentence))) for sentence in sentences]


MAX_COUNT = 2**31 - 1  # what a counter in the database holds


def doc(description: str, example: Any = None, default: str | None = None) -> dict[str, Any]:
    """What the reference and an editor say of a key."""
    said = {"description": description, "example": example, "default": default}
    return {key: value for key, value in said.items() if value is not None}


# Kinds of values. `json` is the JSON Schema of one; the first line of its docstring is its type in the reference.


class NameField(fields.Field[str]):
    """a name of `a-z`, `0-9` and `-`"""

    json = {"type": "string", "pattern": "^[a-z0-9-]+$"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> str:
        if not isinstance(value, str) or not NAME_PATTERN.match(value):
            raise ValidationError(f"expected a name of a-z, 0-9 and -, not {value!r}")
        return value


class StringOrList(fields.Field[tuple[str, ...]]):
    """text, or a list of texts"""

    def __init__(self, *, choices: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = choices

    @property
    def json(self) -> dict[str, Any]:
        word: dict[str, Any] = {
            "type": "string",
            "minLength": 1,
            **({"enum": list(self.choices)} if self.choices else {}),
        }
        return {"anyOf": [word, {"type": "array", "items": word, "minItems": 1}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> tuple[str, ...]:
        words = value if isinstance(value, list) else [value]
        for word in words:
            if not isinstance(word, str) or not word:
                raise ValidationError(f"expected text or a list of texts, not {word!r}")
            if self.choices and word not in self.choices:
                known = ", ".join(self.choices)
                raise ValidationError(
                    f"expected one of {known}, not {word!r}{suggestion(word, self.choices)}"
                )
        if not words:
            raise ValidationError("expected text or a list of texts, not an empty list")
        return tuple(words)


class ExpressionField(fields.Field[Expression]):
    """a JMESPath expression"""

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


class TemplateField(fields.Field[Any]):
    """a mapping with `${{ }}` values, or one whole `${{ }}`

    Compiled by `check`, which tells all of its errors.
    """

    json = {"anyOf": [{"type": "object"}, {"type": "string", "pattern": r"^\s*\$\{\{"}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Any:
        if not isinstance(value, dict) and not (isinstance(value, str) and value.lstrip().startswith("${{")):
            raise ValidationError("expected a mapping: the body of the request to Scale")
        return value


class ForEachField(fields.Field[ForEach]):
    """`annotation`, `label`, `frame`, or a JMESPath list"""

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


class DurationField(fields.Field[int]):
    """a duration: `90s`, `30m`, `12h`, `7d`"""

    SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    MOST = 3650 * SECONDS["d"]
    json = {"type": "string", "pattern": "^[1-9][0-9]{0,8}[smhd]$"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> int:
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", str(value))
        if not found:
            raise ValidationError(f"expected a duration such as 90s, 30m, 12h or 7d, not {value!r}")
        seconds = int(found[1]) * self.SECONDS[found[2]]
        if seconds > self.MOST:
            raise ValidationError(f"expected ten years at the most, not {value!r}")
        return seconds


class FractionField(fields.Field[float]):
    """a share: `5%`, `0.05`, `2 of 3`"""

    json = {
        "anyOf": [
            {
                "type": "string",
                "pattern": r"^((?=.*[1-9])(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?) ?%|[1-9][0-9]* (of|in) [1-9][0-9]*)$",
            },
            {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        ]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> float:
        share = 0.0
        if percent := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", str(value)):
            share = float(percent[1]) / 100
        elif parts := re.fullmatch(r"([0-9]+) (?:of|in) ([1-9][0-9]*)", str(value)):
            share = int(parts[1]) / int(parts[2])
        elif isinstance(value, int | float) and not isinstance(value, bool):
            share = float(value)
        if not 0 < share <= 1:
            raise ValidationError(f"expected a share such as 5%, 2 of 3 or 0.05, not {value!r}")
        return share


class CountField(fields.Field[int | None]):
    """a whole number, or `all`"""

    json = {"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 1}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> int | None:
        if value == "all":
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValidationError(f"expected all or a whole number (a share is a `quorum`), not {value!r}")
        return value


class PaddingField(fields.Field[Padding]):
    """pixels, or a share such as `10%`"""

    json = {
        "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?%$"}]
    }

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Padding:
        if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            return Padding(float(value), False)
        percent = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", str(value))
        if not percent:
            raise ValidationError(f"expected pixels such as 20, or a share such as 10%, not {value!r}")
        return Padding(float(percent[1]) / 100, True)


class ReducerField(fields.Field[Reduce]):
    """a reducer's name, or a mapping with `by` and its options"""

    _by = {"enum": [known.name for known in REDUCERS]}
    json = {"anyOf": [_by, {"type": "object", "properties": {"by": _by}, "required": ["by"]}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> Reduce:
        options = {"by": value} if isinstance(value, str) else value
        if not isinstance(options, dict) or not isinstance(options.get("by"), str):
            raise ValidationError("expected the name of a reducer, or a mapping with `by` and its options")
        return Reduce(options["by"], {key: option for key, option in options.items() if key != "by"})


class BooleanField(fields.Field[bool]):
    """`true`, `false`"""

    json = {"type": "boolean"}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError(f"expected true or false, not {value!r}")
        return value


class OnErrorField(fields.Field[dict[str, Any]]):
    """`stop`, or a mapping with `retry` or `start`"""

    @property
    def json(self) -> dict[str, Any]:
        either = {"oneOf": [{"required": ["retry"]}, {"required": ["start"]}]}
        return {"anyOf": [{"const": "stop"}, {**_object(OnErrorSchema()), **either}]}

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> dict[str, Any]:
        if value == "stop":
            return {}
        if not isinstance(value, dict):
            raise ValidationError("expected stop, {retry: 2, …} or {start: step}")
        return dict(OnErrorSchema().load(value))


def choice(*words: str, **kwargs: Any) -> fields.String:
    """One of a few words."""
    said = f"expected {', '.join(words[:-1])} or {words[-1]}, not {{input!r}}"
    return fields.String(validate=validate.OneOf(words, error=said), **kwargs)


def integer(least: int, most: int = MAX_COUNT, **kwargs: Any) -> fields.Integer:
    """A whole number in a range."""
    said = (
        f"expected {least} to {most}" if most < MAX_COUNT else f"expected a whole number, {least} to {most:,}"
    )
    return fields.Integer(strict=True, validate=validate.Range(least, most, error=said), **kwargs)


# Sections of a file.


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
        return "is called `after` here (many YAML readers take a bare `on` for true)"
    return f"is not known here{suggestion(key, known)} (known: {', '.join(known)})"


class OnErrorSchema(Section):
    """What to do when a task of this step ends in an error."""

    retry = integer(1, 10, metadata=doc("How many times the request is sent again, as new tasks.", 2))
    params = TemplateField(
        metadata=doc(
            "Fields that replace those of the first request. Names are those of the task that failed.",
            {"attachment": "${{ task.metadata.backup_url }}"},
        )
    )
    mirror = StringOrList(metadata=doc("As the step's own `mirror`.", "attachment"))
    start = NameField(
        metadata=doc(
            "The step that looks at the failed task instead; its own `after` need not say so.",
            "ask-elsewhere",
        )
    )

    @validates_schema
    def one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        if ("retry" in data) == ("start" in data):
            raise ValidationError("expected either `retry` or `start`")


class AfterSchema(Section):
    """Which results a step looks at. What is not said is not asked."""

    type = StringOrList(metadata=doc("Type of the task.", "polygonannotation"))
    project = StringOrList(metadata=doc("Name of the task's project.", "street-scenes"))
    batch = StringOrList(metadata=doc("Name of the task's batch.", "week-12"))
    tags = StringOrList(metadata=doc("Tags that the task must all have.", ["night", "rain"]))
    metadata = fields.Dict(
        keys=fields.String(),
        metadata=doc(
            "Keys of the task's metadata and their values; a list means one of them.", {"city": "Bern"}
        ),
    )
    environment = choice("live", "test", metadata=doc("The world that the task belongs to.", "live"))
    state = StringOrList(
        choices=STATES,
        load_default=("completed",),
        metadata=doc(
            "Levels, not events; a list means any of them. `completed`: there is a current response without an error,"
            " whatever came first. `accepted`, `rejected`, `fixed`: the review says so. `error`. `recalled`: Scale took the"
            " response back.",
            "accepted",
        ),
    )
    step = StringOrList(
        metadata=doc(
            "Step of this workflow that made the task. A step takes its own results only if it names itself.",
            "detect",
        )
    )

    @validates_schema(skip_on_field_errors=True)
    def asks_for_something(self, data: dict[str, Any], **_: Any) -> None:
        if not any(data.get(key) for key in ("type", "project", "batch", "tags", "metadata", "step")):
            raise ValidationError(
                "would take every task: name a type, project, batch, tags, metadata or step"
            )


class CreateSchema(Section):
    """The task that a step asks for."""

    type = fields.String(required=True, metadata=doc("Type of the task at Scale.", "annotation"))
    params = TemplateField(
        required=True,
        metadata=doc(
            "The whole body of the request (project, batch, metadata and tags stand in it too). `callback_url` and"
            " `unique_id` are added by the service; `clear_unique_id_on_error` is refused, since a repeat would pay again.",
            {"attachment": "${{ task.params.attachment }}", "layers": "${{ layers }}"},
        ),
    )


class CropSchema(Section):
    """The part of the image around the annotation takes the place of `attachment`."""

    padding = PaddingField(
        load_default=Padding(0, False),
        metadata=doc("Added on each side: pixels, or a share of the annotation's own size.", "10%", "0"),
    )
    min_size = integer(
        1,
        100_000,
        load_default=1,
        metadata=doc("Least width and height in pixels; a smaller cut grows around its centre.", 64),
    )


class JoinSchema(Section):
    """Looks at the tasks of the step in `after` together, as `results`, once for each task that was fanned out."""

    wait = CountField(load_default=None, metadata=doc("For all of them, or for that many results.", 2, "all"))
    quorum = FractionField(metadata=doc("Instead of `wait`: for that share of them.", "2 of 3"))
    within = DurationField(
        metadata=doc("From the planning of the fan-out to the deadline. Without it there is none.", "7d")
    )
    on_deadline = choice(
        "continue",
        "hold",
        "stop",
        load_default="hold",
        metadata=doc(
            "With the results at hand: go on, plan as held, or do nothing. The same when what is waited for can't come any"
            " more.",
            "continue",
        ),
    )
    over = choice(
        "all",
        "copies",
        load_default="all",
        metadata=doc(
            "All tasks of the source together, or the copies of each element by themselves.", "copies"
        ),
    )
    reduce = ReducerField(metadata=doc("Makes the results one: `reduced`.", "majority"))

    @validates_schema
    def wait_or_quorum(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("quorum") and data.get("wait"):
            raise ValidationError("expected either `wait` or `quorum`")


class LimitsSchema(Section):
    """What goes beyond a limit is planned as held."""

    per_day = integer(
        1,
        metadata=doc(
            "Follow-ups a day (UTC). At a step: that step's, in place of the guard of 10,000 a day.",
            500,
            "10,000",
        ),
    )
    total = integer(1, metadata=doc("Follow-ups ever.", 20_000))
    depth = integer(
        1,
        metadata=doc(
            "Tasks from the first one to the last; what follows a task from outside is the first.", 3, "5"
        ),
    )


class StepSchema(Section):
    """One step: which results it looks at, and which tasks it asks for."""

    description = fields.String(metadata=doc("For people.", "Boxes from polygons"))
    after = fields.Nested(
        AfterSchema,
        metadata=doc(
            "Which results the step looks at. Required, except where only an `on_error` starts the step.",
            {"type": "polygonannotation", "state": "accepted"},
        ),
    )
    when = ExpressionField(metadata=doc("A condition on the result.", "length(annotations) > `0`"))
    for_each = ForEachField(metadata=doc("One task for each of them.", "annotation"))
    where = ExpressionField(metadata=doc("For which of them.", "annotation.label == 'car'"))
    crop = fields.Nested(
        CropSchema, metadata=doc("Cut the image around the annotation.", {"padding": "10%", "min_size": 64})
    )
    mirror = StringOrList(
        metadata=doc(
            "Fields of the request whose file is copied into the artifact store; Scale gets a signed address of the copy.",
            "attachment",
        )
    )
    join = fields.Nested(
        JoinSchema,
        metadata=doc(
            "Wait for the tasks of the step in `after`. Without `create`, the outcome is kept and nothing is asked.",
            {"quorum": "2 of 3", "within": "7d", "reduce": "majority"},
        ),
    )
    copies = integer(1, 100, metadata=doc("The same question to that many tasks.", 3))
    sample = FractionField(
        metadata=doc("Only for that share of the tasks; which ones is fixed by their ids.", "5%")
    )
    repeat = fields.String(
        validate=validate.Equal("each_response", error="expected each_response"),
        metadata=doc("Again for every new response of a task. Otherwise once.", "each_response"),
    )
    hold = BooleanField(
        load_default=False, metadata=doc("Each follow-up waits for a person's approval.", True)
    )
    limits = fields.Nested(LimitsSchema, metadata=doc("Limits of this step.", {"per_day": 500}))
    dry_run = BooleanField(
        load_default=False, metadata=doc("Follow-ups are recorded as `skipped`; nothing is created.", True)
    )
    on_error = OnErrorField(
        metadata=doc(
            "When a task of this step ends in an error.", {"retry": 2, "mirror": "attachment"}, "stop"
        )
    )
    on_recall = choice(
        "keep",
        "cancel",
        load_default="keep",
        metadata=doc(
            "When Scale recalls a task: what becomes of its follow-ups that are not done.", "cancel"
        ),
    )
    create = fields.Nested(
        CreateSchema,
        metadata=doc(
            "The task to create.",
            {"type": "annotation", "params": {"attachment": "${{ task.params.attachment }}"}},
        ),
    )
    python = fields.String(
        validate=validate.Regexp(
            r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z", error="expected module:function, not {input!r}"
        ),
        metadata=doc(
            "Instead of `create`: a function that takes the view of one result and gives a list of"
            " `{type, params, key}`; `key` tells several tasks apart.",
            "config.handlers:ask_twice",
        ),
    )


class ExpectSchema(Section):
    """One follow-up that must be planned. What is not said may be anything."""

    step = fields.String(metadata=doc("The step that asks for it.", "boxes"))
    type = fields.String(metadata=doc("Type of the task.", "annotation"))
    state = choice("planned", "held", "skipped", metadata=doc("Its state.", "planned"))
    unique_id = fields.String(
        metadata=doc("Its identity.", "polygons-to-boxes.boxes.5774cc78b01249ab09f089dd")
    )
    reason = fields.String(allow_none=True, metadata=doc("Why it is held or skipped.", "dry run"))
    params = fields.Dict(
        keys=fields.String(), metadata=doc("Fields of the request that must be so.", {"with_labels": True})
    )


class ExampleSchema(Section):
    """A payload, and what must follow from it: tried by `flask workflows test`."""

    name = fields.String(metadata=doc("What the example shows.", "Two polygons become two layers"))
    given = fields.Raw(
        required=True,
        metadata=doc(
            "A callback's body, or the path of one beside this file. Or a mapping with `payload` and what stands around it:"
            " `step` (that made the task), `parent`, `request`, `environment`, `depth`, `recalled`, `annotations`; for a join"
            " `join` (its step) and `results` (bodies).",
            "payloads/polygons.json",
        ),
    )
    expect = fields.List(
        fields.Nested(ExpectSchema),
        required=True,
        metadata=doc("The follow-ups, in their order.", [{"step": "boxes", "type": "annotation"}]),
    )


class WorkflowSchema(Section):
    """A workflow file."""

    workflow = NameField(required=True, metadata=doc("Name of the workflow.", "polygons-to-boxes"))
    description = fields.String(metadata=doc("For people.", "Boxes from polygons"))
    limits = fields.Nested(
        LimitsSchema, metadata=doc("Limits of all its steps together.", {"per_day": 2000, "depth": 3})
    )
    steps = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={**doc("The steps by name (`a-z`, `0-9`, `-`)."), "values": StepSchema},
    )
    examples = fields.List(
        fields.Nested(ExampleSchema), metadata=doc("Payloads, and what must follow from them.")
    )


# The same for editors.


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a workflow file, made from the sections above."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Weighbridge workflow",
        **_object(WorkflowSchema()),
    }


def _object(schema: Schema) -> dict[str, Any]:
    required = [name for name, field in schema.fields.items() if field.required]
    return {
        "type": "object",
        "description": (schema.__doc__ or "").split("\n")[0],
        "properties": {name: _property(field) for name, field in schema.fields.items()},
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _property(field: fields.Field[Any]) -> dict[str, Any]:
    said = field.metadata
    example = {"examples": [said["example"]]} if "example" in said else {}
    return {**_type(field), "description": said["description"], **example}


def _type(field: fields.Field[Any]) -> dict[str, Any]:
    if (own := getattr(field, "json", None)) is not None:
        return dict(own)
    match field:
        case fields.Nested():
            return _object(field.schema)
        case fields.List():
            return {"type": "array", "items": _type(field.inner)}
        case fields.Dict():
            if (values := field.metadata.get("values")) is None:
                return {"type": "object"}
            return {
                "type": "object",
                "minProperties": 1,
                "propertyNames": NameField.json,
                "additionalProperties": _object(values()),
            }
        case fields.Integer():
            return {"type": "integer", **_bounds(field)}
        case fields.String():
            return {"type": ["string", "null"] if field.allow_none else "string", **_bounds(field)}
        case _:
            return {}


def _bounds(field: fields.Field[Any]) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for validator in field.validators:
        match validator:
            case validate.Range():
                bounds |= {"minimum": validator.min, "maximum": validator.max}
            case validate.OneOf():
                bounds["enum"] = list(validator.choices)
            case validate.Equal():
                bounds["const"] = validator.comparable
            case validate.Regexp():
                bounds["pattern"] = "^" + str(validator.regex.pattern).replace(r"\Z", "$")
    return bounds
