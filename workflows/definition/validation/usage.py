"""A check against the tasks that exist: a filter in `after` that no task has ever matched is probably misspelt."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from workflows.definition.document import FileProblem, read
from workflows.definition.expressions import suggestion
from workflows.definition.loader import MAX_FILE_BYTES
from workflows.definition.model import Workflow
from workflows.definition.reading import read_regular_file
from workflows.definition.templates import Constant, Fields


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
    path = Path(workflow.path)
    document = read(read_regular_file(path, path.parent, MAX_FILE_BYTES).decode("utf-8-sig"))
    for step in workflow.steps:
        for key in ("type", "project"):
            for value in getattr(step.after, key) if step.after else ():
                if value not in known[key]:
                    at = ("steps", step.name, "after", key)
                    message = f"no task of the {key} {value!r} was ever seen{suggestion(value, known[key])}"
                    yield FileProblem(workflow.path, document.line(at), ".".join(at), message)


def _created_types(workflow: Workflow) -> set[str]:
    return {step.create.type for step in workflow.steps if step.create}


def _created_projects(workflow: Workflow) -> set[str]:
    found = set()
    for step in workflow.steps:
        params = step.create.params if step.create else None
        project = params.get("project") if isinstance(params, Fields) else None
        if isinstance(project, Constant) and isinstance(project.value, str):
            found.add(project.value)
    return found
