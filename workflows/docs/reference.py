"""The reference of the language as a page, made from the schema itself: what is documented is what is accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from marshmallow import Schema, fields, missing, validate

from workflows.definition.functions import FUNCTIONS
from workflows.definition.names import FAN_OUT_ROOTS, JOIN_ROOTS, ROOTS
from workflows.definition.reducers import REDUCERS
from workflows.definition.sections import (
    AfterSchema,
    CreateSchema,
    CropSchema,
    ExampleSchema,
    ExpectSchema,
    JoinSchema,
    LimitsSchema,
    OnErrorSchema,
    StepSchema,
    WorkflowSchema,
)

SECTIONS: tuple[tuple[str, Schema], ...] = (
    ("The file", WorkflowSchema()),
    ("A step: `steps.<name>`", StepSchema()),
    ("`after`", AfterSchema()),
    ("`create`", CreateSchema()),
    ("`crop`", CropSchema()),
    ("`join`", JoinSchema()),
    ("`limits`", LimitsSchema()),
    ("`on_error`", OnErrorSchema()),
    ("`examples[]`", ExampleSchema()),
    ("`examples[].expect[]`", ExpectSchema()),
)

INTRODUCTION = """\
# The workflow language

One YAML file in `WORKFLOWS_DIR` is one workflow. A file with an error is set aside whole, with every error's line and field;
the others run. `weighbridge workflows check` shows the errors, and editors that read JSON Schema find one in
`workflows/workflow.schema.json`.

This page is made from the schema (`weighbridge workflows reference`); a test holds it to that.

YAML is read as version 1.2 has it: only `true` and `false` are booleans, so `[yes, no]` are two words; dates are text.
"""

EXPRESSIONS = """\
## Values: `${{ … }}`

An expression is [JMESPath](https://jmespath.org) over the view of one result. `when`, `where` and a list in `for_each` are
expressions by themselves; in `params` they stand in `${{ }}`.

- A value that is one whole `${{ }}` keeps its type; inside of a longer text it becomes text.
- Where a whole value is null, its key (in a list, its element) is left out. A null inside of a text skips the follow-up, with
  the reason: nobody pays for a sentence with a hole in it.
- Numbers, `true`, `false` and `null` stand in backticks, text in single quotes: ``length(annotations) > `0` && task.project == 'street'``.
- In YAML, quote a value that begins with a backtick, or has a `: ` or ` #` in it.
- Conditions follow JMESPath's truth: null, false and whatever is empty do not hold.
- An expression that fails on a result (a number where text is needed) plans a `skipped` follow-up that says so.
"""

PYTHON = """\
## `python`

Where expressions are not enough, `python: module:function` names a plain function. It takes the view of one result (`view.task`,
`view.response`, `view.annotations`, `view.layers` …) and gives a list of mappings:

```python
def ask_twice(view):
    request = {"attachment": view.task["params"]["attachment"], "objects_to_annotate": ["car"]}
    return [{"type": "annotation", "params": request, "key": key} for key in ("first", "second")]
```

`key` becomes a part of the unique_id, and must be there when there are several. What the function asks for is held, limited,
retried and created like everything else; what it raises is the reason of a `skipped` follow-up.
"""

IDENTITY = """\
## Identity

The `unique_id` of a follow-up is `<workflow>.<step>.<source>`: the source's task_id; in a fan-out then the annotation's uuid
(without one a digest of it), the label's digest or the frame; then the copy's number; with `repeat: each_response` then the
response's digest; of a retry then `retry-1`, `retry-2` … Looking again, replaying, and editing the file never pay twice.
"""


def reference() -> str:
    """The page, in Markdown."""
    parts = [INTRODUCTION]
    for title, schema in SECTIONS:
        parts.append(
            f"## {title}\n\n{_summary(schema.__doc__)}\n\n{_table(_keys(schema), 'key', 'meaning', 'type', 'default', 'example')}"
        )
    parts += [
        EXPRESSIONS,
        f"### Names\n\n{_table(_names(), 'name', 'meaning')}",
        f"### Functions\n\nBeside JMESPath's own; `layers.only('car')` is the same as `only(layers, 'car')`.\n\n{_table(_functions(), 'function', 'gives')}",
        f"### Reducers\n\nFor `join: {{reduce: …}}`.\n\n{_table(_reducers(), 'name', 'what becomes of the results', 'options')}",
        PYTHON,
        IDENTITY,
    ]
    return "\n".join(parts)


def _summary(text: str | None) -> str:
    return (text or "").split("\n")[0]


def _table(rows: Iterator[tuple[str, ...]], *heads: str) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return (
        "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
            for line in lines
        )
        + "\n"
    )


def _keys(schema: Schema) -> Iterator[tuple[str, ...]]:
    for name, field in schema.fields.items():
        metadata: Mapping[str, Any] = field.metadata
        meaning = metadata.get("description", "") + (" Required." if field.required else "")
        yield (
            f"`{name}`",
            meaning,
            _type(field),
            _default(field),
            _code(next(iter(metadata.get("examples", ())), None)),
        )


def _type(field: fields.Field[Any]) -> str:
    for validator in field.validators:
        if isinstance(validator, validate.OneOf):
            return ", ".join(f"`{choice}`" for choice in validator.choices)
        if isinstance(validator, validate.Equal):
            return f"`{validator.comparable}`"
    if (label := getattr(field, "label", None)) is not None:
        return str(label)
    match field:
        case fields.Nested() | fields.Dict():
            return "mapping"
        case fields.List():
            return "list"
        case fields.Integer():
            return "whole number"
        case fields.String():
            return "text"
        case fields.Raw():
            return "mapping, or text"
        case _:
            raise TypeError(f"no description for the field type {type(field).__name__}")


def _default(field: fields.Field[Any]) -> str:
    default = field.metadata.get("shown_default", field.load_default)
    if default is missing or default is None:
        return ""
    return ", ".join(_code(word) for word in (default if isinstance(default, tuple) else (default,)))


def _code(value: Any) -> str:
    """A value as it is written in a file."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _names() -> Iterator[tuple[str, ...]]:
    for name, meaning in ROOTS.items():
        yield f"`{name}`", meaning
    for name, (meaning, where) in (*FAN_OUT_ROOTS.items(), *JOIN_ROOTS.items()):
        yield f"`{name}`", f"{meaning} Only {where}."


def _functions() -> Iterator[tuple[str, ...]]:
    for name, spec in FUNCTIONS.FUNCTION_TABLE.items():
        function = spec["function"]
        if function.__doc__:  # JMESPath's own have none
            code = function.__code__
            yield f"`{name}({', '.join(code.co_varnames[1 : code.co_argcount])})`", _summary(function.__doc__)


def _reducers() -> Iterator[tuple[str, ...]]:
    for one in REDUCERS:
        yield (
            f"`{one.name}`",
            one.summary,
            ", ".join(f"`{name}: {value}`" for name, value in one.options.items()),
        )
