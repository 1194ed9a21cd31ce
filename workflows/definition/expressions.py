"""`${{ … }}`: JMESPath over the view of one result. Compiled and checked when a file is loaded, evaluated by plan()."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jmespath.exceptions
import jmespath.lexer
import jmespath.parser
import jmespath.visitor

from workflows.definition.functions import FUNCTIONS

# What an expression can name, and what it means.
ROOTS: Mapping[str, str] = {
    "task": "Scale's own task object: `task.params`, `task.metadata`, `task.project` …",
    "response": "The current response, as Scale gave it; null when there is none.",
    "annotations": "All annotations, flat, as Scale gives them, with `type` and `frame` always set; also those of result files.",
    "answer": "The response without its annotations: `answer.category`, `answer.fields` …",
    "error": "Scale's error response; null when there is none.",
    "layers": "The annotations under `boxes`, `polygons`, `lines` and `cuboids`; of a video, the `url` of a layers file.",
    "hypothesis": "The response in the form that a task of the same kind takes as its hypothesis.",
    "base_annotations": "The same for `base_annotations`.",
    "source": "The follow-up that made the task: `workflow`, `step`, `unique_id`, `task_id`, `annotation`, `request`; null for a task from outside.",
    "parent": "The result that the task followed, with names as here: `parent.task`, `parent.hypothesis` …; null for a task from outside.",
    "uncropped": "The annotations in coordinates of the image that the task's crop was cut from.",
}
# These are only there in the steps that have them: after the comma, where.
FAN_OUT_ROOTS: Mapping[str, tuple[str, str]] = {
    "annotation": (
        "The annotation that the task is about.",
        "in a step with `for_each: annotation`, and not in its `when`",
    ),
    "label": ("The label that the task is about.", "in a step with `for_each: label`, and not in its `when`"),
    "frame": (
        "The number of the frame that the task is about, from 0.",
        "in a step with `for_each: frame`, and not in its `when`",
    ),
    "item": ("The element that the task is about.", "in a step with `for_each`, and not in its `when`"),
    "crop": (
        "What is cut out: `left`, `top`, `width`, `height` in pixels.",
        "in the request of a step with `crop`",
    ),
    "copy": ("The number of the copy, from 1.", "in the request of a step with `copies`"),
}
JOIN_ROOTS: Mapping[str, tuple[str, str]] = {
    "results": (
        "What is joined: of each `task_id`, `task`, `response`, `answer`, `annotations` (uncropped), `annotation` (that it is about).",
        "in a step with `join`",
    ),
    "reduced": ("What the reducer made of them.", "in a step with `join`"),
}

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class ExpressionError(Exception):
    """An expression that can't be read, or can't be evaluated on this result. args[0] is the sentence to show."""


class Scope(Protocol):
    """Where an expression looks its names up: the view of a result, and what a step adds to it."""

    def get(self, name: str) -> Any: ...


@dataclass(frozen=True)
class Expression:
    """A JMESPath expression that was read once."""

    source: str
    names: frozenset[str]  # the names of the view that it asks for
    tree: Any = field(repr=False, compare=False)

    def evaluate(self, names: Scope) -> Any:
        """The value over `names`. ExpressionError says why there is none; null is a value."""
        try:
            value = _INTERPRETER.visit(self.tree, names)
        except jmespath.exceptions.JMESPathError as error:
            raise ExpressionError(f"`{self.source}`: {_sentence(error)}") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise ExpressionError(f"`{self.source}`: {error or type(error).__name__}") from error
        if value is not None and not isinstance(value, str | bool | int | float | list | dict):
            raise ExpressionError(f"`{self.source}` is a whole view: name what of it is meant")
        return value

    def holds(self, names: Scope) -> bool:
        """JMESPath's truth: null, false and whatever is empty do not hold; 0 does."""
        value = self.evaluate(names)
        return not (value is None or value is False or value == "" or value == [] or value == {})


_INTERPRETER = jmespath.visitor.TreeInterpreter(jmespath.visitor.Options(custom_functions=FUNCTIONS))


@functools.lru_cache(maxsize=1024)
def compile_expression(text: str) -> Expression:
    """Read one JMESPath expression, with or without its `${{ }}`. ExpressionError says what is wrong with it."""
    source = text.strip()
    if source.startswith("${{") and source.endswith("}}"):
        source = source[3:-2].strip()
    if not source:
        raise ExpressionError("an expression is empty")
    try:
        parsed = jmespath.parser.Parser().parse(source).parsed
        quoted = [
            token["value"]
            for token in jmespath.lexer.Lexer().tokenize(source)
            if token["type"] == "quoted_identifier"
        ]
    except jmespath.exceptions.JMESPathError as error:
        raise ExpressionError(f"`{source}` is no JMESPath: {_sentence(error)}{_hint(source)}") from None
    for word in quoted:
        if _WORD.match(word):
            raise ExpressionError(
                f"`{source}`: \"{word}\" in double quotes is a field's name; text stands in single quotes: '{word}'"
            )
    tree = _bound(parsed, source)
    return Expression(source, frozenset(_names(tree, at_root=True)), tree)


def _sentence(error: Exception) -> str:
    first = str(error).splitlines()[0]
    return first.split(", for expression")[0].removesuffix(" for expression:").removesuffix(":")


def _hint(source: str) -> str:
    if re.search(r"[<>=]\s*-?[0-9]", source):
        return " (numbers stand in backticks: `0`)"
    return " (and, or, not are written &&, ||, !)" if re.search(r"\b(and|or|not)\b", source) else ""


def _bound(node: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The tree with `layers.only(label)` read as `only(layers, label)`, and every function checked."""
    kind = node["type"]
    if kind == "field" and node["value"] in ("true", "false", "null"):
        raise ExpressionError(f"`{source}`: write {node['value']} in backticks: `{node['value']}`")
    if kind == "slice":  # its children are numbers
        return dict(node)
    if kind == "function_expression":
        least, variadic = _arity(node["value"], source)
        given = len(node["children"])
        if given < least or (given > least and not variadic):
            raise ExpressionError(f"`{source}`: {node['value']}() takes {least} values, not {given}")
    if kind != "subexpression":
        return {**node, "children": [_bound(child, source) for child in node["children"]]}
    left, *rest = node["children"]
    bound = _bound(left, source)
    for right in rest:
        if (
            right["type"] == "function_expression"
            and len(right["children"]) == _arity(right["value"], source)[0] - 1
        ):
            # JMESPath would look the other values up in `left`; nothing that it allows has one value less.
            bound = {**right, "children": [bound, *(_bound(child, source) for child in right["children"])]}
        else:
            bound = {"type": "subexpression", "children": [bound, _bound(right, source)]}
    return bound


def _arity(name: str, source: str) -> tuple[int, bool]:
    """How many values a function takes, and whether it takes more than that too."""
    spec = FUNCTIONS.FUNCTION_TABLE.get(name)
    if spec is None:
        raise ExpressionError(
            f"`{source}`: there is no function {name}(){suggestion(name, FUNCTIONS.FUNCTION_TABLE)}"
        )
    return len(spec["signature"]), bool(spec["signature"] and spec["signature"][-1].get("variadic"))


def _names(node: Mapping[str, Any], at_root: bool) -> Iterator[str]:
    """The names that are looked up in the view itself, not in a value that was found before."""
    kind, children = node["type"], node["children"]
    if kind == "field" and at_root:
        yield node["value"]
    elif kind == "slice":
        return
    elif kind in (
        "subexpression",
        "index_expression",
        "pipe",
        "projection",
        "value_projection",
        "filter_projection",
    ):
        yield from _names(children[0], at_root)
        for child in children[1:]:
            yield from _names(child, False)
    else:
        for child in children:
            yield from _names(child, at_root and kind != "expref")


def suggestion(word: str, known: Any) -> str:
    """`, did you mean …?` for a slip of the keyboard, else nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean `{close[0]}`?" if close else ""


# A value of a request: text, numbers, lists and mappings in which `${{ }}` may stand.


@dataclass(frozen=True)
class Text:
    """Text with expressions inside, which become text themselves."""

    parts: tuple[str | Expression, ...]


@dataclass(frozen=True)
class Items:
    items: tuple[Template, ...]


@dataclass(frozen=True)
class Fields:
    items: tuple[tuple[str, Template], ...]

    def get(self, name: str) -> Template | None:
        return next((value for key, value in self.items if key == name), None)


@dataclass(frozen=True)
class Constant:
    value: Any


Template = Constant | Expression | Text | Items | Fields


def compile_template(value: Any) -> tuple[Template, dict[tuple[str | int, ...], str]]:
    """Read a value of a request; and every expression in it that is wrong, as {path inside of it: sentence}."""
    errors: dict[tuple[str | int, ...], str] = {}
    return _template(value, (), errors), errors


def _template(value: Any, path: tuple[str | int, ...], errors: dict[tuple[str | int, ...], str]) -> Template:
    if isinstance(value, dict):
        return Fields(tuple((key, _template(inner, (*path, key), errors)) for key, inner in value.items()))
    if isinstance(value, list):
        return Items(tuple(_template(inner, (*path, index), errors) for index, inner in enumerate(value)))
    if isinstance(value, str) and "${{" in value:
        try:
            return _text(value)
        except ExpressionError as error:
            errors[path] = str(error)
    return Constant(value)


def _text(value: str) -> Template:
    parts: list[str | Expression] = []
    position = 0
    while (start := value.find("${{", position)) >= 0:
        end = _end(value, start + 3)
        parts += [value[position:start], compile_expression(value[start + 3 : end])]
        position = end + 2
    parts.append(value[position:])
    written = [part for part in parts if not (isinstance(part, str) and not part.strip())]
    if len(written) == 1 and isinstance(written[0], Expression):
        return written[0]
    return Text(tuple(part for part in parts if part != ""))


def _end(value: str, start: int) -> int:
    """Where the `}}` of an expression is: not inside of quotes, nor of a {…} of its own."""
    depth, quote, position = 0, "", start
    while position < len(value):
        character = value[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote:
                quote = ""
        elif character in "'\"`":
            quote = character
        elif character == "{":
            depth += 1
        elif character == "}":
            if not depth and value.startswith("}}", position):
                return position
            depth -= 1
        position += 1
    raise ExpressionError(f"`{value[start - 3 :].strip()}` has no closing }}}}")


def render(template: Template, names: Scope) -> Any:
    """The value of a template over a view.

    A key or an element whose `${{ }}` is null is left out; text that needs a missing value is an ExpressionError,
    for a sentence with a hole in it would be paid for.
    """
    match template:
        case Constant(value):
            return value
        case Expression():
            return template.evaluate(names)
        case Fields(items):
            rendered = ((key, inner, render(inner, names)) for key, inner in items)
            return {key: value for key, inner, value in rendered if not _missing(inner, value)}
        case Items(elements):
            return [value for inner in elements if not _missing(inner, value := render(inner, names))]
        case Text(parts):
            return "".join(part if isinstance(part, str) else _as_text(part, names) for part in parts)


def _missing(template: Template, value: Any) -> bool:
    return value is None and isinstance(template, Expression)


def _as_text(expression: Expression, names: Scope) -> str:
    value = expression.evaluate(names)
    if value is None:
        raise ExpressionError(f"`{expression.source}` is null, and text needs it")
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def names_in(template: Template) -> frozenset[str]:
    """Every name of the view that a template asks for."""
    return frozenset(name for _, expression in expressions_in(template) for name in expression.names)


def expressions_in(
    template: Template, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Expression]]:
    """Every expression of a template with its path inside of it."""
    match template:
        case Expression():
            yield path, template
        case Text(parts):
            yield from ((path, part) for part in parts if isinstance(part, Expression))
        case Fields(items):
            for key, inner in items:
                yield from expressions_in(inner, (*path, key))
        case Items(elements):
            for index, inner in enumerate(elements):
                yield from expressions_in(inner, (*path, index))
