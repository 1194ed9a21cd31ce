"""Checks of more than one file: workflows that trigger each other, and filters that no task has ever matched."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from workflows.definition.document import FileProblem, read
from workflows.definition.expressions import suggestion
from workflows.definition.loader import MAX_FILE_BYTES
from workflows.definition.model import Create, Step, Workflow
from workflows.definition.reading import read_regular_file
from workflows.definition.templates import Constant, Fields, Items


def unseen_filters(
    workflow: Workflow, types: Collection[str], projects: Collection[str]
) -> Iterator[FileProblem]:
    """Yield a warning for each task type and project in `after` that no stored task has, and no step creates.

    types, projects: those of all stored tasks. Nothing is reported where there are no tasks.
    """
    if not types:
        return
    known = {
        "type": {*types, *_created_types(workflow)},
        "project": {*projects, *_created_projects(workflow)},
    }
    for step in workflow.steps:
        for key in ("type", "project"):
            for value in getattr(step.after, key) if step.after else ():
                if value not in known[key]:
                    message = f"no task of the {key} {value!r} was ever seen{suggestion(value, known[key])}"
                    yield _problem(workflow, ("steps", step.name, "after", key), message)


def circles(workflows: Sequence[Workflow]) -> Iterator[FileProblem]:
    """Yield a warning for each two steps of different workflows that follow each other's tasks: only the depth limit ends them."""
    steps = [(workflow, step) for workflow in workflows for step in workflow.steps]
    for (first, one), (second, other) in combinations(steps, 2):
        if first is not second and _follows(one, other) and _follows(other, one):
            names = f"`{first.name}.{one.name}` and `{second.name}.{other.name}`"
            message = f"{names} trigger each other until the depth limit; narrow `after` by project or tags"
            yield _problem(second, ("steps", other.name, "after"), message)


def _follows(step: Step, source: Step) -> bool:
    """Return whether a step matches the tasks that a step of another workflow creates."""
    after, create = step.after, source.create
    if after is None or create is None or after.step or after.metadata or create.type not in after.type:
        return False
    project, tags = _constant(create, "project"), _constant(create, "tags")
    if after.project and project is not UNKNOWN and project not in after.project:
        return False
    return not after.tags or tags is UNKNOWN or set(after.tags) <= set(tags if isinstance(tags, list) else ())


UNKNOWN = object()
"""Value of a parameter that only a result supplies."""


def _constant(create: Create, name: str) -> Any:
    """Return the value of a parameter; None if the request does not have it, UNKNOWN if a result supplies it."""
    if not isinstance(create.params, Fields):
        return UNKNOWN
    match create.params.get(name):
        case Constant(value):
            return value
        case Items(items) if all(isinstance(item, Constant) for item in items):
            return [item.value for item in items if isinstance(item, Constant)]
        case None:
            return None
        case _:
            return UNKNOWN


def _problem(workflow: Workflow, at: tuple[str, ...], message: str) -> FileProblem:
    path = Path(workflow.path)
    document = read(read_regular_file(path, path.parent, MAX_FILE_BYTES).decode("utf-8-sig"))
    return FileProblem(workflow.path, document.line(at), ".".join(at), message)


def _created_types(workflow: Workflow) -> set[str]:
    return {step.create.type for step in workflow.steps if step.create}


def _created_projects(workflow: Workflow) -> set[str]:
    projects = (_constant(step.create, "project") for step in workflow.steps if step.create)
    return {project for project in projects if isinstance(project, str)}
