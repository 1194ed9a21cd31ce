"""The schema of a workflow file, one class for each section. loader.py, json_schema.py and docs/reference.py all use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, post_load, validate, validates_schema

from scale.environments import ENVIRONMENTS
from workflows.definition.crops import Padding
from workflows.definition.expressions import suggestion
from workflows.definition.fields import (
    BooleanField,
    CopiesField,
    CountField,
    DurationField,
    ExpressionField,
    ForEachField,
    FractionField,
    LimitField,
    NameField,
    PaddingField,
    ReducerField,
    StringOrList,
    TemplateField,
    choice,
    doc,
    integer,
)
from workflows.definition.model import STATES


class Section(Schema):
    """A mapping with known keys. The first line of a section's docstring is its summary in the reference."""

    class Meta:
        unknown = INCLUDE

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def refuse_unknown_keys(self, data: Any, original: Any, **_: Any) -> None:
        """Report each unknown key, with the keys that are known."""
        known = list(self.fields)
        unknown = [key for key in original if key not in known] if isinstance(original, Mapping) else []
        if unknown:
            raise ValidationError({key: [_unknown_key(key, known)] for key in unknown})


def _unknown_key(key: str, known: list[str]) -> str:
    if key == "on" and "after" in known:
        return "is called `after` here, because many YAML readers take a bare `on` for true"
    return f"is not a known key{suggestion(key, known)} (known keys: {', '.join(known)})"


class RetrySchema(Section):
    """Send the request again, as a new task in place of the former one."""

    retry = integer(
        1,
        10,
        metadata=doc(
            "Number of times to send the request again, as new tasks. Errors and rejections count apart.", 2
        ),
    )
    params = TemplateField(
        metadata=doc(
            "Fields that replace those of the former request. Expressions see the former task; `attempt` and `previous` exist.",
            {"instruction": "${{ task.instruction }} ${{ join('; ', previous.review.comments) }}"},
        )
    )


class OnRejectedSchema(RetrySchema):
    """What to do when the review rejects a task of this step."""

    @validates_schema
    def require_retry(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse a mapping that says nothing."""
        if "retry" not in data:
            raise ValidationError("expected the number of retries as `retry`")


class OnErrorSchema(RetrySchema):
    """What to do when a task of this step ends in an error."""

    mirror = StringOrList(metadata=doc("Like the step's own `mirror`.", "attachment"))
    start = NameField(
        metadata=doc(
            "Step to run on the failed task instead. Its own `after` does not have to match the task.",
            "ask-elsewhere",
        )
    )

    @validates_schema
    def require_retry_or_start(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse both keys together, and neither."""
        if ("retry" in data) == ("start" in data):
            raise ValidationError("expected either `retry` or `start`")


class OnErrorField(fields.Field[dict[str, Any]]):
    """`stop`, or an OnErrorSchema. An empty mapping means `stop`."""

    label = "`stop`, or a mapping with `retry` or `start`"

    def _deserialize(self, value: Any, attr: Any, data: Any, **_: Any) -> dict[str, Any]:
        if value == "stop":
            return {}
        if not isinstance(value, dict):
            raise ValidationError("expected stop, {retry: 2, …} or {start: step}")
        return dict(OnErrorSchema().load(value))


class AfterSchema(Section):
    """Which results trigger the step. Omitted keys match everything."""

    type = StringOrList(metadata=doc("Type of the task.", "polygonannotation"))
    project = StringOrList(metadata=doc("Name of the task's project.", "street-scenes"))
    batch = StringOrList(metadata=doc("Name of the task's batch.", "week-12"))
    tags = StringOrList(metadata=doc("Tags that the task must have, all of them.", ["night", "rain"]))
    metadata = fields.Dict(
        keys=fields.String(),
        metadata=doc(
            "Keys of the task's metadata and their values; a list matches any of its values.",
            {"city": "Bern"},
        ),
    )
    environment = choice(*ENVIRONMENTS, metadata=doc("Environment of the task: `live` or `test`.", "live"))
    state = StringOrList(
        choices=STATES,
        load_default=("completed",),
        metadata=doc(
            "State of the task; a list matches any of its states. `completed`: the task has a current response without an"
            " error, whatever happened before. `accepted`, `rejected`, `fixed`: the state of the review. `error`: the task"
            " ended in an error. `recalled`: Scale took the response back.",
            "accepted",
        ),
    )
    step = StringOrList(
        metadata=doc(
            "Step of this workflow that created the task. A step sees its own results only if it names itself.",
            "detect",
        )
    )

    @validates_schema(skip_on_field_errors=True)
    def require_a_filter(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse an `after` that matches every task."""
        if not any(data.get(key) for key in ("type", "project", "batch", "tags", "metadata", "step")):
            raise ValidationError("matches every task: add type, project, batch, tags, metadata or step")


class StartSchema(Section):
    """Begin with inputs instead of results: `weighbridge tasks submit FILE --workflow NAME` gives them, as `row`."""

    columns = StringOrList(
        metadata=doc("Columns that each input must have. An input without one of them is refused.", ["image"])
    )


class CreateSchema(Section):
    """The task to create."""

    type = fields.String(
        required=True, metadata=doc("Type of the task at Scale. Fixed text, not an expression.", "annotation")
    )
    params = TemplateField(
        required=True,
        metadata=doc(
            "The whole body of the request, with project, batch, metadata and tags. The service adds `callback_url` and"
            " `unique_id`. `clear_unique_id_on_error` is refused, because a retry would pay again.",
            {"attachment": "${{ task.params.attachment }}", "layers": "${{ layers }}"},
        ),
    )


class CropSchema(Section):
    """Cut the image around the annotation and send the cut as `attachment`."""

    padding = PaddingField(
        load_default=Padding(0, False),
        metadata=doc(
            "Margin on each side: pixels, or a percentage of the annotation's own size.", "10%", "0"
        ),
    )
    min_size = integer(
        1,
        100_000,
        load_default=1,
        metadata=doc("Minimum width and height in pixels. A smaller cut grows around its center.", 64),
    )


class JoinSchema(Section):
    """Wait for the tasks of the step in `after`, and see them together as `results`: once for each source task."""

    wait = CountField(
        load_default=None, metadata=doc("Number of results to wait for, or `all` of them.", 2, "all")
    )
    quorum = FractionField(metadata=doc("Fraction of the tasks to wait for, instead of `wait`.", "2 of 3"))
    within = DurationField(
        metadata=doc("Time from the planning of the fan-out to the deadline. No deadline by default.", "7d")
    )
    on_deadline = choice(
        "continue",
        "hold",
        "stop",
        load_default="hold",
        metadata=doc(
            "What to do at the deadline with the results that exist, and also when the missing results can no longer come:"
            " go on, plan the follow-ups as held, or do nothing.",
            "continue",
        ),
    )
    over = choice(
        "all",
        "copies",
        load_default="all",
        metadata=doc("Join all tasks of the source together, or the copies of each element.", "copies"),
    )
    reduce = ReducerField(metadata=doc("Reducer that combines the results into `reduced`.", "majority"))

    @validates_schema
    def refuse_wait_with_quorum(self, data: dict[str, Any], **_: Any) -> None:
        """Refuse two numbers of results."""
        if data.get("quorum") and data.get("wait"):
            raise ValidationError("expected either `wait` or `quorum`")


def separate_amounts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of model.Limits from those of a file, where a number and an amount share one key."""
    found = {name: value for name, value in data.items() if name not in ("per_day", "total")}
    for name in ("per_day", "total"):
        for limit in data.get(name, ()):
            found[name if isinstance(limit, int) else f"spend_{name}"] = limit
    return found


class LimitsSchema(Section):
    """Limits. Follow-ups beyond a limit are planned as held."""

    per_day = LimitField(
        metadata=doc(
            "Follow-ups a day (UTC), their expected cost a day, or both. A number at a step replaces the default of 10,000 a"
            " day. What is held is released by itself on the next day, in order.",
            [500, "$200"],
            "10,000",
        ),
    )
    total = LimitField(metadata=doc("Follow-ups in total, their expected cost, or both.", 20_000))
    depth = integer(
        1,
        metadata=doc(
            "Length of a chain of follow-ups. The follow-up of a task from outside has depth 1.", 3, "5"
        ),
    )

    @post_load
    def separate_amounts(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Return the limits as model.Limits has them: numbers and amounts under names of their own."""
        return separate_amounts(data)


class StepSchema(Section):
    """One step: which results trigger it, and which tasks it creates."""

    description = fields.String(metadata=doc("Text for readers.", "Boxes from polygons"))
    after = fields.Nested(
        AfterSchema,
        metadata=doc(
            "Which results trigger the step. Required, except in a step with `start` or that only an `on_error` starts.",
            {"type": "polygonannotation", "state": "accepted"},
        ),
    )
    start = fields.Nested(
        StartSchema,
        metadata=doc("Begin with the inputs of a file or a request, not with results.", {"columns": "image"}),
    )
    when = ExpressionField(metadata=doc("Condition on the result.", "length(annotations) > `0`"))
    for_each = ForEachField(metadata=doc("Create one task for each element.", "annotation"))
    where = ExpressionField(
        metadata=doc("Condition on an element of `for_each`.", "annotation.label == 'car'")
    )
    crop = fields.Nested(
        CropSchema, metadata=doc("Cut the image around the annotation.", {"padding": "10%", "min_size": 64})
    )
    mirror = StringOrList(
        metadata=doc(
            "Fields of the request whose files are copied to the artifact store. Scale gets a signed URL of the copy.",
            "attachment",
        )
    )
    join = fields.Nested(
        JoinSchema,
        metadata=doc(
            "Wait for the tasks of the step in `after`. Without `create`, the joined result is stored and no task follows.",
            {"quorum": "2 of 3", "within": "7d", "reduce": "majority"},
        ),
    )
    copies = CopiesField(
        metadata=doc(
            "Number of tasks with the same request. Or a list: one task for each mapping, whose fields replace those of"
            " `params`.",
            [{"project": "team-a"}, {"project": "team-b", "instruction": "Draw carefully"}],
        )
    )
    sample = FractionField(
        metadata=doc("Fraction of the tasks to follow. The task's id decides, so the choice is stable.", "5%")
    )
    repeat = fields.String(
        validate=validate.Equal("each_response", error="expected each_response"),
        metadata=doc(
            "Run again for each new response of a task. Otherwise once for a task.", "each_response"
        ),
    )
    hold = BooleanField(load_default=False, metadata=doc("Hold each follow-up until it is approved.", True))
    limits = fields.Nested(LimitsSchema, metadata=doc("Limits of this step.", {"per_day": 500}))
    dry_run = BooleanField(
        load_default=False, metadata=doc("Record the follow-ups as `skipped` and create no task.", True)
    )
    on_error = OnErrorField(
        metadata=doc(
            "What to do when a task of this step ends in an error.",
            {"retry": 2, "mirror": "attachment"},
            "stop",
        )
    )
    on_rejected = fields.Nested(
        OnRejectedSchema,
        metadata=doc(
            "What to do when the review rejects a task of this step.",
            {"retry": 2, "params": {"instruction": "${{ join('; ', previous.review.comments) }}"}},
        ),
    )
    on_recall = choice(
        "keep",
        "cancel",
        load_default="keep",
        metadata=doc(
            "What to do with unfinished follow-ups of a task when Scale recalls the task.", "cancel"
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
            "A function that returns the tasks to create, instead of `create`: a list of `{type, params, key}`, where `key`"
            " distinguishes several tasks.",
            "config.handlers:ask_twice",
        ),
    )


class ExpectSchema(Section):
    """One follow-up that must be planned. Omitted keys match everything."""

    step = fields.String(metadata=doc("Step that plans it.", "boxes"))
    type = fields.String(metadata=doc("Type of the task.", "annotation"))
    state = choice("planned", "held", "skipped", metadata=doc("Its state.", "planned"))
    unique_id = fields.String(
        metadata=doc("Its unique_id.", "polygons-to-boxes.boxes.5774cc78b01249ab09f089dd")
    )
    reason = fields.String(allow_none=True, metadata=doc("Why it is held or skipped.", "dry run"))
    params = fields.Dict(
        keys=fields.String(), metadata=doc("Fields that the request must have.", {"with_labels": True})
    )


class ExampleSchema(Section):
    """A payload, and the follow-ups that it must produce. `weighbridge workflows test` runs it."""

    name = fields.String(metadata=doc("What the example shows.", "Two polygons become two layers"))
    given = fields.Raw(
        required=True,
        metadata=doc(
            "The body of a callback, or its path relative to this file. Or a mapping with `payload` and its context: `step`"
            " (that created the task), `parent`, `request`, `environment`, `depth`, `recalled`, `annotations`; for a join"
            " `join` (its step) and `results` (bodies). For a step with `start` a mapping with `row`.",
            "payloads/polygons.json",
        ),
    )
    expect = fields.List(
        fields.Nested(ExpectSchema),
        required=True,
        metadata=doc("The follow-ups, in order.", [{"step": "boxes", "type": "annotation"}]),
    )


class WorkflowSchema(Section):
    """A workflow file."""

    workflow = NameField(required=True, metadata=doc("Name of the workflow.", "polygons-to-boxes"))
    description = fields.String(metadata=doc("Text for readers.", "Boxes from polygons"))
    limits = fields.Nested(
        LimitsSchema, metadata=doc("Limits of all steps together.", {"per_day": 2000, "depth": 3})
    )
    steps = fields.Dict(
        keys=fields.String(),
        required=True,
        metadata={**doc("The steps by name (`a-z`, `0-9`, `-`)."), "values": StepSchema},
    )
    examples = fields.List(
        fields.Nested(ExampleSchema), metadata=doc("Payloads, and the follow-ups that they must produce.")
    )
