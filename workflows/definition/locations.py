"""Where in a workflow file an expression is written: for messages about a result on which it failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

from workflows.definition.document import Path, read
from workflows.definition.expressions import Expression
from workflows.definition.loader import MAX_FILE_BYTES
from workflows.definition.model import Step, Workflow
from workflows.definition.reading import read_regular_file
from workflows.definition.templates import expressions_in


def locate(workflow: Workflow, step_name: str, reason: str) -> str:
    """Return `file:line: field` of the expression that a reason quotes; of the step if it quotes none of its expressions."""
    step = workflow.step(step_name)
    at: Path = ("steps", step_name)
    for path, expression in _expressions(step) if step else ():
        if f"`{expression.source}`" in reason:
            at = (*at, *path)
            break
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
    return f"{workflow.path}:{_line(workflow.path, at)}: {field}"


def _expressions(step: Step) -> Iterator[tuple[Path, Expression]]:
    for name, condition in (("when", step.when), ("where", step.where)):
        if condition is not None:
            yield (name,), condition
    if step.for_each is not None and step.for_each.list is not None:
        yield ("for_each",), step.for_each.list
    if step.create is not None:
        yield from expressions_in(step.create.params, ("create", "params"))
    for number, variant in enumerate(step.variants):
        yield from expressions_in(variant, ("copies", number))
    for name, end in (("on_error", step.on_error), ("on_rejected", step.on_rejected)):
        if end.params is not None:
            yield from expressions_in(end.params, (name, "params"))


def _line(path: str, at: Path) -> int:
    try:
        content = read_regular_file(FilePath(path), FilePath(path).parent, MAX_FILE_BYTES)
        return read(content.decode("utf-8-sig")).line(at)
    except (OSError, ValueError):  # deleted since it was loaded
        return 1
