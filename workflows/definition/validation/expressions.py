"""Rules for expressions: names that the step does not have, values that can never be right, and nulls that could match."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from workflows.definition.expressions import Expression, suggestion, text_of
from workflows.definition.functions import FUNCTIONS
from workflows.definition.names import FAN_OUT_ROOTS, JOIN_ROOTS, ROOTS
from workflows.definition.templates import (
    Constant,
    Fields,
    Items,
    Template,
    Text,
    compile_template,
    expressions_in,
)
from workflows.definition.types import ANY, VIEW, Type, array_of, returned, type_of
from workflows.definition.validation.finding import Fields as StepFields
from workflows.definition.validation.finding import Finding, Path


def check(fields: StepFields, *, has_inputs: bool = False) -> Iterator[Finding]:
    """Yield the findings in every expression of one step. has_inputs: a step of the workflow has a `start`."""
    join = (*(tuple(JOIN_ROOTS) if "join" in fields else ()), *(("row",) if has_inputs else ()))
    each = fields.get("for_each")
    element = () if each is None else ("item",) if each.kind == "list" else ("item", each.kind)
    request = (*(("crop",) if "crop" in fields else ()), *(("copy",) if "copies" in fields else ()))
    if isinstance(fields.get("when"), Expression):
        yield from _expression(("when",), fields["when"], [*ROOTS, *join])
    if each is not None and each.list is not None:
        yield from _expression(("for_each",), each.list, [*ROOTS, *join])
    if isinstance(fields.get("where"), Expression):
        yield from _expression(("where",), fields["where"], [*ROOTS, *join, *element])
    if "params" in (create := fields.get("create") or {}):
        known = [*ROOTS, *join, *element, *request]
        yield from _template(("create", "params"), create["params"], known)
        variants = fields["copies"] if isinstance(fields.get("copies"), list) else []
        for number, variant in enumerate(variants):
            yield from _template(("copies", number), variant, known)
    for name in ("on_error", "on_rejected"):
        if "params" not in (end := fields.get(name) or {}):
            continue
        if isinstance(end["params"], dict):
            known = [*ROOTS, "attempt", "previous", *(("row",) if has_inputs else ())]
            yield from _template((name, "params"), end["params"], known)
        else:
            yield Finding((name, "params"), "expected a mapping: the fields that change")


def _template(at: Path, written: Any, known: list[str]) -> Iterator[Finding]:
    template, errors = compile_template(written)
    for path, message in errors.items():
        yield Finding((*at, *path), message)
    for path, expression in expressions_in(template):
        yield from _expression((*at, *path), expression, known)
    for path, text in _texts(template):
        yield from _looks_like_expression((*at, *path), text)


def _expression(path: Path, expression: Expression, known: list[str]) -> Iterator[Finding]:
    unknown = sorted(expression.names - set(known))
    for word in unknown:
        if there := FAN_OUT_ROOTS.get(word) or JOIN_ROOTS.get(word):
            yield Finding(path, f"`{expression.source}`: `{word}` exists only {there[1]}")
        else:
            names = ", ".join(known)
            yield Finding(
                path, f"`{expression.source}`: there is no `{word}`{suggestion(word, known)} (names: {names})"
            )
    if not unknown:
        for message in dict.fromkeys(_problems(expression)):
            yield Finding(path, f"`{expression.source}`: {message}")


# Text that was probably meant as an expression.

_OTHER_FORMS = re.compile(r"(?<!\$)\$\{\s*([A-Za-z_]\w*)[^{}]*\}|(?<!\$)\{\{\s*([A-Za-z_]\w*)[^{}]*\}\}")
_ALL_ROOTS = {*ROOTS, *FAN_OUT_ROOTS, *JOIN_ROOTS}


def _texts(template: Template, path: Path = ()) -> Iterator[tuple[Path, str]]:
    match template:
        case Constant(str() as value):
            yield path, value
        case Text(parts):
            yield from ((path, part) for part in parts if isinstance(part, str))
        case Fields(items):
            for key, inner in items:
                yield from _texts(inner, (*path, key))
        case Items(items):
            for index, inner in enumerate(items):
                yield from _texts(inner, (*path, index))


def _looks_like_expression(path: Path, text: str) -> Iterator[Finding]:
    """Report `${ x }` and `{{ x }}`, which would go to Scale as text: an error if x is a name that expressions have."""
    for found in _OTHER_FORMS.finditer(text):
        name = found[1] or found[2]
        message = f"`{found[0]}` is sent as text; write `${{{{ {name} … }}}}` for a value"
        yield Finding(path, message, warning=name not in _ALL_ROOTS)


# Types, as far as they are known.


def _problems(expression: Expression) -> Iterator[str]:
    inference = _Inference()
    inference.infer(expression.tree, VIEW)
    yield from inference.problems


_AMBIGUOUS = {"source", "parent", "task", "results", "reduced", "uncropped", "hypothesis", "base_annotations"}
"""Names of the view that objects of Scale do not have: in an unknown object they are a mistake."""
_ORDERED = ("number", "string")
Guards = frozenset[str]
"""Expressions that an `&&` to the left has found to be there."""


class _Inference:
    """Infers the type of each node of one expression, and collects what can never be right."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def infer(self, node: Mapping[str, Any], current: Type, guards: Guards = frozenset()) -> Type:
        """Return the type of a node; `current` is the type of the value in which its names are looked up."""
        kind = node["type"]
        if kind == "field":
            self._check_scope(node["value"], current)
            found = current.field(node["value"])
        else:
            found = _RULES[kind](self, node, current, guards) if kind in _RULES else self._each(node, current)
        return found.present() if _key(node) in guards else found

    def _each(self, node: Mapping[str, Any], current: Type) -> Type:
        for child in node["children"]:
            if isinstance(child, dict):
                self.infer(child, current)
        return Type()

    def _path(self, node: Mapping[str, Any], current: Type) -> Type:
        """Return the type of what follows a dot or a bracket: there, a field's name is no name of the view."""
        if node["type"] == "field":
            self._check_field(node["value"], current)
            return current.field(node["value"])
        if node["type"] in ("subexpression", "index_expression", "projection", "filter_projection"):
            return self._chain(node, current, is_path=True)
        return self.infer(node, current)

    def _check_field(self, name: str, current: Type) -> None:
        if current.kind == "array":
            self.problems.append(
                f"`.{name}` of a list is always null; write `[].{name}` for that field of each element"
            )
        elif current.kind in ("string", "number", "boolean"):
            self.problems.append(f"`.{name}` of a {current.kind} is always null")

    def _check_scope(self, name: str, current: Type) -> None:
        """Report a name of the view that is used where names are fields of an element."""
        if current.name == "view" or name not in _ALL_ROOTS or name in (current.fields or {}):
            return
        if name in _AMBIGUOUS or (current.name and name not in ("label", "frame", "error", "answer")):
            self.problems.append(
                f"inside [? ], {{ }} or a function that follows a dot, `{name}` is a field of the element there, not the"
                f" `{name}` of the result; compare outside of it, or write `@.{name}` if you mean the field"
            )

    def _chain(
        self, node: Mapping[str, Any], current: Type, guards: Guards = frozenset(), *, is_path: bool = False
    ) -> Type:
        """Return the type of a node whose first child sees `current` and whose others see its value."""
        kind, children = node["type"], node["children"]
        left = self._path(children[0], current) if is_path else self.infer(children[0], current, guards)
        if kind == "subexpression" or kind == "pipe":
            for child in children[1:]:
                left = self._path(child, left)
            return left
        if kind == "index_expression":
            if children[1]["type"] == "slice":
                return left.nullable()
            return (left.element or Type()).nullable()
        element = self._element(kind, left)
        if kind == "filter_projection":
            self.infer(children[2], element)
        inner = self._path(children[1], element)
        is_list = left.kind == "array" and not left.is_nullable
        return array_of(inner) if is_list else array_of(inner).nullable()

    def _element(self, kind: str, left: Type) -> Type:
        if kind == "value_projection":
            return Type(is_nullable=False)
        return left.element.present() if left.element else Type(is_nullable=True)

    def _flatten(self, node: Mapping[str, Any], current: Type, guards: Guards) -> Type:
        value = (
            self._path(node["children"][0], current)
            if current.name != "view"
            else self.infer(node["children"][0], current, guards)
        )
        if value.element and value.element.kind == "array":
            return Type("array", value.is_nullable, element=value.element.element)
        return value if value.kind == "array" else Type("array")

    def _comparator(self, node: Mapping[str, Any], current: Type, guards: Guards) -> Type:
        left, right = (self.infer(child, current, guards) for child in node["children"])
        has_literal = any(child["type"] == "literal" for child in node["children"])
        if node["value"] in ("eq", "ne"):
            if left.is_nullable and right.is_nullable and not has_literal:
                self.problems.append(
                    "compares two values that may both be null, and a missing value must not match another one; "
                    f"write `{text_of(node['children'][0])} && …` in front, so that it is there"
                )
            self._check_kinds(left, right, "are never equal")
            return type_of(True)
        for side in (left, right):
            if side.kind not in (ANY, "null", *_ORDERED):
                self.problems.append(
                    f"{_article(side.kind)} has no order; only numbers and text can be compared with < and >"
                )
        if left.kind in _ORDERED and right.kind in _ORDERED:
            self._check_kinds(left, right, "have no order")
        return type_of(True).nullable()

    def _check_kinds(self, left: Type, right: Type, what: str) -> None:
        if (
            ANY not in (left.kind, right.kind)
            and "null" not in (left.kind, right.kind)
            and left.kind != right.kind
        ):
            self.problems.append(f"{_article(left.kind)} and {_article(right.kind)} {what}")

    def _and(self, node: Mapping[str, Any], current: Type, guards: Guards) -> Type:
        left, right = node["children"]
        self.infer(left, current, guards)
        self.infer(right, current, guards | _present_after(left))
        return Type()

    def _or(self, node: Mapping[str, Any], current: Type, guards: Guards) -> Type:
        left, right = (self.infer(child, current, guards) for child in node["children"])
        kind = left.kind if left.kind == right.kind else ANY
        return Type(kind, right.is_nullable)

    def _not(self, node: Mapping[str, Any], current: Type, guards: Guards) -> Type:
        self.infer(node["children"][0], current, guards)
        return type_of(True)

    def _function(self, node: Mapping[str, Any], current: Type, guards: Guards) -> Type:
        name = node["value"]
        signature = FUNCTIONS.FUNCTION_TABLE[name]["signature"]
        args = [self.infer(child, current, guards) for child in node["children"] if child["type"] != "expref"]
        for child in node["children"]:
            if child["type"] == "expref":
                self.infer(child["children"][0], next((arg.element for arg in args if arg.element), Type()))
        if not any(child["type"] == "expref" for child in node["children"]):
            for position, arg in enumerate(args):
                self._check_argument(
                    name, position, arg, signature[min(position, len(signature) - 1)]["types"]
                )
        return returned(name, args)

    def _check_argument(self, name: str, position: int, arg: Type, types: Iterable[str]) -> None:
        accepted = {one.partition("-")[0] for one in types}
        elements = {one.partition("-")[2] for one in types} - {""}
        if accepted and arg.kind not in (ANY, *accepted):
            expected = " or ".join(sorted(accepted))
            self.problems.append(f"{name}() takes {expected} as argument {position + 1}, not {arg.kind}")
        elif elements and arg.kind == "array" and arg.element and arg.element.kind not in (ANY, *elements):
            expected = " or ".join(sorted(elements))
            self.problems.append(
                f"{name}() takes a list of {expected} as argument {position + 1}, not of {arg.element.kind}"
            )

    def _multi(self, node: Mapping[str, Any], current: Type, guards: Guards) -> Type:
        types = [self.infer(child, current, guards) for child in node["children"]]
        if node["type"] == "multi_select_dict":
            return Type("object", current.is_nullable)
        kinds = {found.kind for found in types}
        element = Type(kinds.pop()) if len(kinds) == 1 else Type()
        return Type("array", current.is_nullable, element=element)

    def _pair(self, node: Mapping[str, Any], current: Type, guards: Guards) -> Type:
        return self.infer(node["children"][0], current, guards)


_RULES: Mapping[str, Any] = {
    **dict.fromkeys(
        ("subexpression", "pipe", "index_expression", "projection", "value_projection", "filter_projection"),
        _Inference._chain,
    ),
    "flatten": _Inference._flatten,
    "comparator": _Inference._comparator,
    "and_expression": _Inference._and,
    "or_expression": _Inference._or,
    "not_expression": _Inference._not,
    "function_expression": _Inference._function,
    "multi_select_list": _Inference._multi,
    "multi_select_dict": _Inference._multi,
    "key_val_pair": _Inference._pair,
    "literal": lambda self, node, current, guards: type_of(node["value"]),
    "current": lambda self, node, current, guards: current,
    "identity": lambda self, node, current, guards: current,
}


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _present_after(node: Mapping[str, Any]) -> Guards:
    """Return the expressions that are not null where a condition is true: its operands, and what it compares with a literal."""
    if node["type"] == "and_expression":
        return frozenset().union(*(_present_after(child) for child in node["children"]))
    if node["type"] == "comparator":
        left, right = node["children"]
        sides = [(left, right), (right, left)]
        return frozenset(
            _key(side)
            for side, other in sides
            if other["type"] == "literal" and (node["value"] != "ne") == (other["value"] is not None)
        )
    return frozenset({_key(node)})


def _key(node: Mapping[str, Any]) -> str:
    return json.dumps(node, sort_keys=True, default=str)
