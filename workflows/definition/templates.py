"""Templates: the values of a request (text, numbers, lists, mappings) in which `${{ }}` may occur."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workflows.definition.expressions import Expression, ExpressionError, Scope, compile_expression
from workflows.definition.recipes import RECIPES

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Text:
    """Text with expressions inside, which become text themselves."""

    parts: tuple[str | Expression, ...]


@dataclass(frozen=True)
class Items:
    """A list."""

    items: tuple[Template, ...]


@dataclass(frozen=True)
class Fields:
    """A mapping."""

    items: tuple[tuple[str, Template], ...]

    def get(self, name: str) -> Template | None:
        """Return the template of a key, or None."""
        return next((value for key, value in self.items if key == name), None)


@dataclass(frozen=True)
class Constant:
    """A value without expressions."""

    value: Any


Template = Constant | Expression | Text | Items | Fields


def compile_template(value: Any) -> tuple[Template, dict[Path, str]]:
    """Parse a value of a request. Return the template and its errors, as {path in it: message}."""
    errors: dict[Path, str] = {}
    return _template(value, (), errors), errors


def _template(value: Any, path: Path, errors: dict[Path, str]) -> Template:
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
        end = _closing(value, start + 3)
        parts += [value[position:start], compile_expression(value[start + 3 : end])]
        position = end + 2
    parts.append(value[position:])
    written = [part for part in parts if not (isinstance(part, str) and not part.strip())]
    if len(written) == 1 and isinstance(written[0], Expression):
        return written[0]
    return Text(tuple(part for part in parts if part != ""))


def _closing(value: str, start: int) -> int:
    """Return the position of the `}}` of an expression: outside of quotes, and of its own {…}."""
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
    """Return the value of a template over a view. Raises ExpressionError.

    A key or an element whose `${{ }}` is null is left out. Text that contains a null is an error, because Scale would be
    paid for a sentence with a gap.
    """
    match template:
        case Constant(value):
            return value
        case Expression():
            return template.evaluate(names)
        case Fields(items):
            rendered = ((key, inner, render(inner, names)) for key, inner in items)
            return {key: value for key, inner, value in rendered if not _is_missing(inner, value)}
        case Items(elements):
            return [value for inner in elements if not _is_missing(inner, value := render(inner, names))]
        case Text(parts):
            return "".join(part if isinstance(part, str) else _as_text(part, names) for part in parts)


def _is_missing(template: Template, value: Any) -> bool:
    return value is None and isinstance(template, Expression)


def _as_text(expression: Expression, names: Scope) -> str:
    value = expression.evaluate(names)
    if value is None:
        raise ExpressionError(f"`{expression.source}` is null inside a text")
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, RECIPES):
        raise ExpressionError(f"`{expression.source}` is a file that is still to be built, not text")
    try:
        return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
    except TypeError:
        raise ExpressionError(f"`{expression.source}` contains a file that is still to be built") from None


def replaced(template: Template, changes: Template) -> Template:
    """Return the template of a mapping with the fields of `changes` in place of its own."""
    if not isinstance(template, Fields) or not isinstance(changes, Fields):
        return template
    return Fields(tuple({**dict(template.items), **dict(changes.items)}.items()))


def names_in(template: Template) -> frozenset[str]:
    """Return every name of the view that a template uses."""
    return frozenset(name for _, expression in expressions_in(template) for name in expression.names)


def expressions_in(template: Template, path: Path = ()) -> Iterator[tuple[Path, Expression]]:
    """Yield every expression of a template, with its path in it."""
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
