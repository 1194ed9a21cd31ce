"""Reads YAML so that each value keeps its line: errors in a workflow file name file, line and field."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

Path = tuple[str | int, ...]

MAX_NODES = 20_000
"""Values in a file, those that aliases repeat included: a small file can stand for billions of values."""
MAX_DEPTH = 100

TAG = "tag:yaml.org,2002:"
KNOWN_TAGS = ("null", "bool", "int", "float", "str", "merge", "map", "seq")


class FileProblem(NamedTuple):
    """One problem in a workflow file: where it is, what is wrong, and what was expected."""

    path: str  # of the file
    line: int  # 1-based
    field: str  # "steps.boxes.create.params.layers"; empty for the file as a whole
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.path}:{self.line}", self.field, self.message) if part)


@dataclass
class Document:
    """The value of a YAML text, the line of each part of it, and what is not valid YAML."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[tuple[Path, int, str]] = field(default_factory=list)  # (path, line, message)

    def line(self, path: Path) -> int:
        """Return the line of a value, or of the nearest written value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 has them: only true and false are booleans, dates and 1:30 are text.

    PyYAML implements YAML 1.1, which reads the choices [yes, no] as booleans and 2026-01-31 as a date; neither may reach
    a request to Scale by accident. The number and depth of nodes are bounded while they are read.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node and those inside it."""
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, _TOO_LARGE, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_TOO_LARGE = f"the file is too large or nested too deeply; at most {MAX_NODES:,} values and {MAX_DEPTH} levels are possible"


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):  # fmt: skip
    _Loader.add_implicit_resolver(TAG + _tag, re.compile(f"^(?:{_pattern})$"), _first)


def read(text: str) -> Document:
    """Read one YAML text. Never raises for its content: `faults` holds what is wrong."""
    document = Document()
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        lines = text.splitlines()
        written = lines[line - 1] if line <= len(lines) else ""
        message = ", ".join(part for part in (error.context, error.problem) if part)
        message = message if message == _TOO_LARGE else f"is not valid YAML: {message}{_hint(written)}"
        document.faults.append(((), line, message))
        return document
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        document.faults.append(((), 1, f"is not valid YAML: {error}"))
        return document
    if root is not None:
        document.data = _DocumentReader(document).value(root, (), ())
    return document


def _hint(line: str) -> str:
    if "${{" in line:
        return " (quote a ${{ … }} that contains a colon or a #, or that is inside [ ] or { })"
    if "`" in line:
        return " (quote a value that begins with a backtick)"
    return " (indent with spaces, not tabs)" if "\t" in line else ""


class _DocumentReader:
    """Converts the nodes of a document to values, and records their lines."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0

    def value(self, node: yaml.Node, path: Path, around: tuple[int, ...]) -> Any:
        """Return the value of a node. `around`: ids of the nodes that contain it."""
        self.nodes += 1
        line = node.start_mark.line + 1
        self.document.lines.setdefault(path, line)
        if id(node) in around:
            return self.fault(path, line, "an alias contains itself")
        if self.nodes > MAX_NODES or len(around) > MAX_DEPTH:
            return self.fault(path, line, _TOO_LARGE)
        around = (*around, id(node))
        tag = node.tag.removeprefix(TAG)
        if tag not in KNOWN_TAGS:
            self.fault(
                path, line, f"has the tag {tag}; only text, numbers, true, false and null are possible"
            )
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, around)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index), around) for index, item in enumerate(node.value)]
        try:
            return _scalar(tag, str(node.value))
        except ValueError:
            return self.fault(path, line, f"{node.value!r} is not a valid {tag}")

    def mapping(self, node: yaml.MappingNode, path: Path, around: tuple[int, ...]) -> dict[str, Any]:
        """Return the value of a mapping node, with what `<<` merges into it."""
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == TAG + "merge":
                for one in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    shared = self.value(one, path, around)
                    if isinstance(shared, dict):
                        merged = {**shared, **merged}
                    else:
                        self.fault(path, line, "`<<` needs a mapping")
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(path, line, "expected a key of plain text")
                continue
            key = str(key_node.value)
            if key in found:
                first = self.document.lines[(*path, key)]
                self.fault((*path, key), line, f"`{key}` is a duplicate key, first used on line {first}")
                continue
            self.document.lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key), around)
        return {**merged, **found}

    def fault(self, path: Path, line: int, message: str) -> None:
        """Record what is not valid."""
        self.document.faults.append((path, line, message))


def _scalar(tag: str, text: str) -> Any:
    match tag:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text) if len(text) < 400 else text
        case "float":
            return float(text) if math.isfinite(float(text)) else text
        case _:
            return text
