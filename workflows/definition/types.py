"""Types of the values in expressions, as far as they are known before there is a result. validation/expressions.py infers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

ANY = "any"


@dataclass(frozen=True)
class Type:
    """A JMESPath type: string, number, boolean, array, object, null, expref; or any."""

    kind: str = ANY
    is_nullable: bool = True
    fields: Mapping[str, Type] | None = None  # of an object, those that are known; it may have others
    element: Type | None = None  # of an array
    name: str = ""  # of the objects that this language defines: "annotation", "result", "view"

    def nullable(self, is_nullable: bool = True) -> Type:
        """Return this type, nullable if it is or if `is_nullable`."""
        return replace(self, is_nullable=self.is_nullable or is_nullable)

    def present(self) -> Type:
        """Return this type without null."""
        return replace(self, is_nullable=False)

    def field(self, name: str) -> Type:
        """Return the type of a field."""
        if self.kind not in (ANY, "object"):
            return Type("null")
        return (self.fields or {}).get(name, Type()).nullable(self.is_nullable)


STRING, NUMBER, BOOLEAN = Type("string"), Type("number"), Type("boolean")
OBJECT, ARRAY = Type("object"), Type("array")


def array_of(element: Type) -> Type:
    """Return the type of a list that is always there."""
    return Type("array", False, element=element.present())


ANNOTATION = Type(
    "object",
    False,
    {
        "type": STRING.present(),
        "frame": Type(),
        "label": Type(),
        "uuid": STRING,
        "attributes": OBJECT,
        "pieces": ARRAY,
        "vertices": ARRAY,
        **dict.fromkeys(("left", "top", "width", "height", "x", "y"), NUMBER),
    },
    name="annotation",
)
TASK = Type(
    "object",
    False,
    {
        **dict.fromkeys(("task_id", "type", "status"), STRING.present()),
        **dict.fromkeys(
            ("project", "batch", "instruction", "unique_id", "completed_at", "created_at"), STRING
        ),
        "params": OBJECT,
        "metadata": OBJECT,
        "tags": ARRAY,
    },
)
SOURCE = Type(
    "object",
    True,
    {
        **dict.fromkeys(("workflow", "step", "unique_id", "task_id"), STRING.present()),
        "annotation": ANNOTATION.nullable(),
        "annotation_uuid": STRING,
        "element": STRING,
        "attempt": NUMBER.present(),
        "request": OBJECT.present(),
    },
)
RESULT = Type(
    "object",
    False,
    {
        "task_id": STRING.present(),
        "unique_id": STRING.present(),
        "task": TASK,
        "response": Type(),
        "answer": OBJECT,
        "annotations": array_of(ANNOTATION),
        "element": STRING,
        "annotation": ANNOTATION.nullable(),
    },
    name="result",
)
_VIEW: dict[str, Type] = {
    "task": TASK,
    "response": Type(),
    "annotations": array_of(ANNOTATION),
    "answer": OBJECT,
    "error": OBJECT,
    "layers": OBJECT.present(),
    "hypothesis": OBJECT.present(),
    "base_annotations": OBJECT.present(),
    "source": SOURCE,
    "uncropped": array_of(ANNOTATION),
    "review": Type("object", False, {"status": STRING, "comments": array_of(STRING)}),
}
_RECT = Type("object", False, dict.fromkeys(("left", "top", "width", "height"), NUMBER.present()))
VIEW = Type(
    "object",
    False,
    {
        **_VIEW,
        "parent": Type("object", True, {**_VIEW, "parent": OBJECT}, name="view"),
        "annotation": ANNOTATION,
        "label": STRING.present(),
        "frame": NUMBER.present(),
        "item": Type(),
        "crop": _RECT,
        "copy": NUMBER.present(),
        "attempt": NUMBER.present(),
        "previous": Type("object", False, {**_VIEW, "previous": OBJECT}, name="view"),
        "row": OBJECT.present(),
        "results": array_of(RESULT),
        "reduced": OBJECT,
    },
    name="view",
)
"""What an expression sees. Which of these names a step has is another check."""

_RETURNS: Mapping[str, Type] = {
    **dict.fromkeys(("abs", "avg", "ceil", "floor", "length", "sum", "round"), NUMBER.present()),
    **dict.fromkeys(("contains", "ends_with", "starts_with"), BOOLEAN.present()),
    **dict.fromkeys(("join", "to_string", "type", "lower", "replace"), STRING.present()),
    **dict.fromkeys(("keys", "map", "sort", "to_array", "values"), ARRAY.present()),
    **dict.fromkeys(("merge", "as_layers"), OBJECT.present()),
    **dict.fromkeys(("to_number", "modulo"), NUMBER),
}
_SAME = ("only", "without", "into", "reverse", "sort_by", "unique", "at_frame", "spread", "thin")
"""Functions whose result has the type of their first argument."""
_ELEMENT = ("at", "max_by", "min_by", "max", "min")
"""Functions whose result is an element of their first argument, or null."""


def returned(function: str, args: list[Type]) -> Type:
    """Return the type of a function's result."""
    if function == "not_null":
        kinds = {arg.kind for arg in args}
        return Type(kinds.pop() if len(kinds) == 1 else ANY, all(arg.is_nullable for arg in args))
    if args and function in _SAME:
        return args[0].present()
    if args and function in _ELEMENT:
        return (args[0].element or Type()).nullable()
    return _RETURNS.get(function, Type())


def type_of(value: Any) -> Type:
    """Return the type of a literal value."""
    match value:
        case None:
            return Type("null")
        case bool():
            return BOOLEAN.present()
        case int() | float():
            return NUMBER.present()
        case str():
            return STRING.present()
        case list():
            kinds = {type_of(element).kind for element in value}
            return array_of(Type(kinds.pop()) if len(kinds) == 1 else Type())
        case _:
            return OBJECT.present()
