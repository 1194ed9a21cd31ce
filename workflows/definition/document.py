"""Reads YAML so that every value still knows its line: the ground under each error that a workflow file gives."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

Path = tuple[str | int, ...]

MAX_NODES = 100_000  # aliases can make a small file mean billions of values
MAX_DEPTH = 100


TAG = "tag:yaml.org,2002:"
KNOWN_TAGS = ("null", "bool", "int", "float", "str", "merge", "map", "seq")


class FileProblem(NamedTuple):
    """One thing that is wrong in a workflow file, said so that it can be mended without asking."""

    path: str  # of the file
    line: int  # 1-based
    field: str  # "steps.boxes.create.params.layers"; empty for the file as a whole
    message: str  # what is wrong and what was expected

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.path}:{self.line}", self.field, self.message) if part)


@dataclass
class Document:
    """What a YAML text says, and on which line it says each part."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[tuple[Path, int, str]] = field(default_factory=list)  # what YAML itself made wrong

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest thing around it that is written down."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: only true and false are booleans, dates and 1:30 are text.

    YAML 1.1, PyYAML's own, reads the choices [yes, no] as booleans and 2026-01-31 as a date: neither may reach
    a request to Scale by accident.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):  # fmt: skip
    _Loader.add_implicit_resolver(TAG + _tag, re.compile(f"^(?:{_pattern})$"), _first)


def read(text: str) -> Document:
    """Read one YAML text. Never raises for what stands in it: `faults` says what is wrong, with lines."""
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
        written = text.splitlines()[line - 1] if mark and line <= text.count("\n") + 1 and text else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        document.faults.append(((), line, f"this is not YAML: {said}{_hint(written)}"))
        return document
    except (yaml.YAMLError, RecursionError) as error:
        document.faults.append(((), 1, f"this is not YAML: {error}"))
        return document
    if root is not None:
        document.data = _DocumentReader(document).value(root, (), ())
    return document


def _hint(line: str) -> str:
    if "${{" in line:
        return " (a ${{ … }} with a colon, a # or inside [ ] or { } must stand in quotes)"
    if "`" in line:
        return " (a value that begins with a backtick must stand in quotes)"
    return " (indent with spaces, not tabs)" if "\t" in line else ""


class _DocumentReader:
    """One pass over the nodes of a document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.nodes = 0

    def value(self, node: yaml.Node, path: Path, around: tuple[int, ...]) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        self.document.lines.setdefault(path, line)
        if id(node) in around:
            return self.fault(path, line, "an alias contains itself")
        if self.nodes > MAX_NODES or len(around) > MAX_DEPTH:
            return self.fault(path, line, "the file is too large, or nested too deep")
        around = (*around, id(node))
        tag = node.tag.removeprefix(TAG)
        if tag not in KNOWN_TAGS:
            self.fault(
                path, line, f"the tag {tag} has no meaning here; text, numbers, true, false and null do"
            )
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, around)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index), around) for index, item in enumerate(node.value)]
        try:
            return _scalar(tag, str(node.value))
        except ValueError:
            return self.fault(path, line, f"{node.value!r} is no {tag}")

    def mapping(self, node: yaml.MappingNode, path: Path, around: tuple[int, ...]) -> dict[str, Any]:
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
                        self.fault(path, line, "`<<` takes the fields of a mapping, and this is none")
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(path, line, "a key must be plain text")
                continue
            key = str(key_node.value)
            if key in found:
                first = self.document.lines[(*path, key)]
                self.fault((*path, key), line, f"`{key}` stands here twice, first on line {first}")
                continue
            self.document.lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key), around)
        return {**merged, **found}

    def fault(self, path: Path, line: int, message: str) -> None:
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
