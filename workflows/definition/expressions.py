"""`${{ … }}`: JMESPath over the view of one result. Parsed when a file is loaded, evaluated by plan()."""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jmespath.exceptions
import jmespath.lexer
import jmespath.parser

from workflows.definition.functions import FUNCTIONS
from workflows.definition.interpreter import check_value, interpret

MAX_EXPRESSION_LENGTH = 10_000
MAX_EXPRESSION_DEPTH = 100
"""Nested nodes of the parsed expression: each costs a level of recursion to evaluate."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LEFT_OF_DOT = (
    "subexpression", "index_expression", "pipe", "projection", "value_projection", "filter_projection",
)  # fmt: skip
"""Nodes whose first child sees what they see, and whose other children see its value."""


class ExpressionError(Exception):
    """Raised when an expression cannot be parsed, or cannot be evaluated for this result. args[0] is the message."""


class Scope(Protocol):
    """What an expression sees: the view of a result, and the names that a step adds to it."""

    def get(self, name: str) -> Any:
        """Return the value of a name; None if there is none."""


class Operand(NamedTuple):
    """A part of a condition, and the value that it has for one result."""

    expression: str
    value: Any


MAX_OPERANDS = 20
"""Operands of one expression that are shown."""


@dataclass(frozen=True)
class Expression:
    """A parsed JMESPath expression."""

    source: str
    names: frozenset[str]  # the names of the view that it uses
    tree: Any = field(repr=False, compare=False)

    def evaluate(self, names: Scope) -> Any:
        """Return the value over `names`; null is a value. Raises ExpressionError."""
        value = self._interpret(names)
        try:
            check_value(value)
        except (ValueError, jmespath.exceptions.JMESPathError) as error:
            raise ExpressionError(f"`{self.source}` {error}") from error
        return value

    def holds(self, names: Scope) -> bool:
        """Return whether the value is true for JMESPath: null, false and empty values are not; 0 is. Raises ExpressionError."""
        value = self._interpret(names)
        return not (value is None or value is False or value == "" or value == [] or value == {})

    def operands(self, names: Scope) -> list[Operand]:
        """Return what the expression compares and combines, each with its value over `names`; without literals."""
        found: dict[str, Any] = {}
        for node in itertools.islice(_operands(self.tree), MAX_OPERANDS):
            with contextlib.suppress(ExpressionError):
                found.setdefault(text_of(node), self._interpret(names, node))
        return [Operand(text, value) for text, value in found.items()]

    def _interpret(self, names: Scope, tree: Any = None) -> Any:
        try:
            return interpret(tree or self.tree, names)
        except jmespath.exceptions.JMESPathError as error:
            raise ExpressionError(f"`{self.source}`: {_first_sentence(error)}") from error
        except MemoryError as error:
            raise ExpressionError(f"`{self.source}`: needs too much memory") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise ExpressionError(f"`{self.source}`: {error or type(error).__name__}") from error


@functools.lru_cache(maxsize=1024)
def compile_expression(text: str) -> Expression:
    """Parse one JMESPath expression, with or without its `${{ }}`. Raises ExpressionError."""
    source = text.strip()
    if source.startswith("${{") and source.endswith("}}"):
        source = source[3:-2].strip()
    if not source:
        raise ExpressionError("the expression is empty")
    if len(source) > MAX_EXPRESSION_LENGTH:
        raise ExpressionError(
            f"the expression has {len(source):,} characters; at most {MAX_EXPRESSION_LENGTH:,} are possible"
        )
    try:
        parsed = jmespath.parser.Parser().parse(source).parsed
        tokens = list(jmespath.lexer.Lexer().tokenize(source))
    except jmespath.exceptions.JMESPathError as error:
        raise ExpressionError(
            f"`{source}` is not JMESPath: {_first_sentence(error)}{_syntax_hint(source)}"
        ) from None
    except RecursionError:
        raise ExpressionError(f"`{_short(source)}` is nested too deeply") from None
    _check_depth(parsed, source)
    _check_quotes(tokens, source)
    tree = _with_methods(parsed, source)
    return Expression(source, frozenset(_root_names(tree, at_root=True)), tree)


_CONNECTIVES = ("comparator", "and_expression", "or_expression", "not_expression")


def _operands(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the largest parts of a condition that are no condition themselves; without literals."""
    if node["type"] in _CONNECTIVES:
        for child in node["children"]:
            yield from _operands(child)
    elif node["type"] != "literal":
        yield node


def text_of(node: Mapping[str, Any]) -> str:
    """Return an expression about as it is written; `…` stands for the conditions of filters and what is built."""
    children = node["children"]
    match node["type"]:
        case "field" | "index" | "function_expression" as kind:
            arguments = f"({', '.join(map(text_of, children))})" if kind == "function_expression" else ""
            return f"{node['value']}{arguments}"
        case "subexpression":
            return ".".join(map(text_of, children))
        case "index_expression":
            return f"{text_of(children[0])}[{text_of(children[1])}]"
        case "literal":
            return f"`{json.dumps(node['value'], ensure_ascii=False)}`"
        case "current" | "identity":
            return "@"
        case "flatten":
            return f"{text_of(children[0])}[]"
        case "projection" | "filter_projection" | "value_projection" as kind:
            left = text_of(children[0])
            marks = {"projection": "[*]", "filter_projection": "[?…]", "value_projection": ".*"}
            mark = "" if children[0]["type"] == "flatten" else marks[kind]
            right = text_of(children[1])
            return f"{left}{mark}" + ("" if right == "@" else f".{right}")
        case _:
            return "…"


def _check_depth(tree: Mapping[str, Any], source: str) -> None:
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > MAX_EXPRESSION_DEPTH:
            raise ExpressionError(
                f"`{_short(source)}` is nested too deeply; at most {MAX_EXPRESSION_DEPTH} levels"
            )
        level = [child for node in level for child in node["children"] if isinstance(child, dict)]


def _check_quotes(tokens: Iterable[Mapping[str, Any]], source: str) -> None:
    for token in tokens:
        if token["type"] == "quoted_identifier" and _WORD.match(word := token["value"]):
            raise ExpressionError(
                f"`{source}`: \"{word}\" in double quotes is the name of a field; write text in single quotes: '{word}'"
            )


def _first_sentence(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return first.split(", for expression")[0].removesuffix(" for expression:").removesuffix(":")


def _syntax_hint(source: str) -> str:
    if re.search(r"[<>=]\s*-?[0-9]", source):
        return " (write numbers in backticks: `0`)"
    return " (write &&, ||, ! for and, or, not)" if re.search(r"\b(and|or|not)\b", source) else ""


def _short(source: str) -> str:
    return source if len(source) <= 60 else source[:59] + "…"


def _with_methods(node: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the tree with `layers.only(label)` read as `only(layers, label)`. Raises ExpressionError for a wrong function."""
    kind = node["type"]
    if kind == "field" and node["value"] in ("true", "false", "null"):
        raise ExpressionError(f"`{source}`: write {node['value']} in backticks: `{node['value']}`")
    if kind == "slice":  # its children are numbers
        return dict(node)
    if kind == "function_expression":
        least, is_variadic = _arity(node["value"], source)
        given = len(node["children"])
        if given < least or (given > least and not is_variadic):
            raise ExpressionError(f"`{source}`: {node['value']}() takes {least} arguments, not {given}")
    if kind != "subexpression":
        return {**node, "children": [_with_methods(child, source) for child in node["children"]]}
    left, *rest = node["children"]
    bound = _with_methods(left, source)
    for right in rest:
        bound = _applied(bound, right, source)
    return bound


def _applied(left: dict[str, Any], right: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the tree of `left.right`. A function with one argument too few takes `left` as its first: in JMESPath that is
    always an error, and its other arguments are looked up where `left` is."""
    if (
        right["type"] == "function_expression"
        and len(right["children"]) == _arity(right["value"], source)[0] - 1
    ):
        return {**right, "children": [left, *(_with_methods(child, source) for child in right["children"])]}
    return {"type": "subexpression", "children": [left, _with_methods(right, source)]}


def _arity(name: str, source: str) -> tuple[int, bool]:
    """Return (the number of arguments that a function takes, whether it takes more)."""
    spec = FUNCTIONS.FUNCTION_TABLE.get(name)
    if spec is None:
        raise ExpressionError(
            f"`{source}`: there is no function {name}(){suggestion(name, FUNCTIONS.FUNCTION_TABLE)}"
        )
    return len(spec["signature"]), bool(spec["signature"] and spec["signature"][-1].get("variadic"))


def _root_names(node: Mapping[str, Any], at_root: bool) -> Iterator[str]:
    """Yield the names that are looked up in the view itself, not in a value that was found before."""
    kind, children = node["type"], node["children"]
    if kind == "field" and at_root:
        yield node["value"]
    elif kind == "slice":
        return
    elif kind in _LEFT_OF_DOT:
        yield from _root_names(children[0], at_root)
        for child in children[1:]:
            yield from _root_names(child, False)
    else:
        for child in children:
            yield from _root_names(child, at_root and kind != "expref")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean …?` for a likely misspelling of a known word, else nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean `{close[0]}`?" if close else ""
