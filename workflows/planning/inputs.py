"""Inputs: what a step with `start` begins with. Each is seen as a completed task of the type `input`, which Scale never has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scale.envelope import response_digest
from workflows.definition.model import INPUT, Workflow


def input_id(workflow: str, row: Mapping[str, Any], environment: str, key: str | None = None) -> str:
    """Return the id of an input: the same for equal rows, or for equal keys, of one workflow and environment."""
    if key is None:
        return f"{INPUT}-{response_digest([workflow, environment, row])[:24]}"
    return f"{INPUT}-{workflow}-{key}" + ("" if environment == "live" else f"-{environment}")


def input_task(workflow: str, task_id: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input in the form of a task object with its response."""
    return {
        "task_id": task_id,
        "type": INPUT,
        "status": "completed",
        "metadata": {"workflow": workflow},
        "params": dict(row),
        "response": {},
    }


def takes_inputs(workflow: Workflow) -> bool:
    """Return whether a step of the workflow begins with inputs."""
    return any(step.start is not None for step in workflow.steps)


def required_columns(workflow: Workflow) -> list[str]:
    """Return the columns that the workflow requires of an input."""
    return [*dict.fromkeys(column for step in workflow.steps if step.start for column in step.start.columns)]


def missing_columns(workflow: Workflow, row: Mapping[str, Any]) -> list[str]:
    """Return the columns that the workflow requires of an input and that this one does not have."""
    return [column for column in required_columns(workflow) if row.get(column) is None]
