"""Workflows and views with only the interesting part named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workflows.definition.loader import parse
from workflows.definition.model import InvalidWorkflow, Step, Workflow
from workflows.definition.recipes import displayed
from workflows.planning.view import Source, View, view

TASK_ID = "5774cc78b01249ab09f089dd"
ROOT = Path(__file__).parents[2]

Spec = dict[str, Any]

PYTHON_MODULES = ("tests.workflows", "json", "no.such")
"""What PYTHON_STEPS allows in these tests."""

REQUEST: Spec = {"attachment": "https://images.example/a.png", "objects_to_annotate": ["car"]}


def step(**keys: Any) -> Spec:
    """A step that asks for boxes after a polygon task."""
    return {
        "after": {"type": "polygonannotation"},
        "create": {"type": "annotation", "params": REQUEST},
        **keys,
    }


def written(steps: dict[str, Any], **keys: Any) -> str:
    """A workflow file. JSON is YAML."""
    return json.dumps({"workflow": "w", "steps": steps, **keys})


def workflow(steps: dict[str, Any], **keys: Any) -> Workflow:
    loaded = parse(written(steps, **keys), "w.yaml", python_modules=PYTHON_MODULES)
    assert isinstance(loaded, Workflow), loaded.errors
    return loaded


def errors(steps: dict[str, Any], **keys: Any) -> dict[str, str]:
    """{field: message} of a workflow that must be broken."""
    return errors_of(written(steps, **keys))


def errors_of(text: str) -> dict[str, str]:
    broken = parse(text, "w.yaml", python_modules=PYTHON_MODULES)
    assert isinstance(broken, InvalidWorkflow)
    said: dict[str, list[str]] = {}
    for problem in broken.errors:
        said.setdefault(problem.field, []).append(problem.message)
    return {field: "; ".join(messages) for field, messages in said.items()}


def named(found: Workflow, name: str) -> Step:
    step = found.step(name)
    assert step is not None
    return step


def seen(
    task_type: str = "polygonannotation",
    response: Any = None,
    *,
    task: Spec | None = None,
    task_id: str = TASK_ID,
    **keys: Any,
) -> View:
    """The view of a completed task; a polygon of a car unless said otherwise."""
    whole = {
        "task_id": task_id,
        "type": task_type,
        "status": "completed",
        "params": {"attachment": "https://images.example/street.png"},
        **(task or {}),
    }
    return view(whole, POLYGON if response is None else response, **keys)


POLYGON = {
    "annotations": [{"label": "car", "vertices": [{"x": 0, "y": 0}, {"x": 9, "y": 0}, {"x": 9, "y": 9}]}]
}


def boxes(*labels: str) -> Spec:
    """A response with a box of each label, side by side, each with a uuid."""
    return {
        "annotations": [
            {
                "label": label,
                "left": 100 * number,
                "top": 50,
                "width": 40,
                "height": 20,
                "uuid": f"uuid-{number}",
            }
            for number, label in enumerate(labels)
        ]
    }


def request_of(follow_up: Any) -> Any:
    """Return a follow-up's request with `{"$file": …}` in place of each file."""
    return displayed(follow_up.request, follow_up.files)


def made_by(step: str, unique_id: str | None = None, **keys: Any) -> Source:
    """The follow-up of workflow `w` that made a task."""
    return Source("w", step, unique_id or f"w.{step}.{TASK_ID}", TASK_ID, **keys)
