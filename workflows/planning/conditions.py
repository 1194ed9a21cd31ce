"""The conditions of a step on a result, one by one: plan() stops at the first that is not met, `explain` shows all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from scale.cancellation import only_says_canceled
from workflows.definition.expressions import ExpressionError, Operand
from workflows.definition.model import (
    ACCEPTED,
    COMPLETED,
    ERROR,
    FIXED,
    INPUT,
    RECALLED,
    REJECTED,
    Step,
    Workflow,
)
from workflows.planning.view import StepScope, View


class Condition(NamedTuple):
    """One condition of a step, and whether a result meets it."""

    name: str  # "after.type", "when", "sample", …
    held: bool | None  # whether it is met; None: it could not be evaluated
    why: str
    values: tuple[Operand, ...] = ()  # of an expression, what it saw; only `explain` looks


def conditions(
    view: View, workflow: Workflow, step: Step, joined: StepScope | None = None
) -> Iterator[Condition]:
    """Yield each condition of a step in the order of evaluation.

    `joined`: the names of a join that fires. Its `after` selected the joined tasks, so it is not checked on the view.
    """
    if joined is None and _started_by_error(view, workflow, step):
        yield Condition(
            "on_error", True, f"a task of the step {source_step(view, workflow)} ended in an error"
        )
    elif joined is None:
        yield from _after(view, workflow, step)
    if step.when is not None:
        try:
            yield Condition("when", step.when.holds(joined or view), step.when.source)
        except ExpressionError as error:
            yield Condition("when", None, str(error))
    if step.sample is not None:
        drawn = _drawn(workflow.name, step.name, view.task_id)
        yield Condition("sample", drawn < step.sample, f"drew {drawn:.4f}, needs less than {step.sample:g}")


def _after(view: View, workflow: Workflow, step: Step) -> Iterator[Condition]:
    after, created_by = step.after, source_step(view, workflow)
    if step.start is not None:
        yield _started(view, workflow)
        return
    if after is None:
        yield Condition("after", False, "only the `on_error` of another step starts this step")
        return
    is_own = created_by == step.name
    if is_own and step.name not in after.step:
        yield Condition(
            "after", False, "this step created the task, and does not name itself in `after.step`"
        )
    if after.type:
        yield _one_of("after.type", view.type, after.type)
    if others := tuple(name for name in after.step if name != step.name):
        yield _one_of("after.step", created_by, after.step if is_own else others)
    for key, value, wanted in (
        ("project", view.task.get("project"), after.project),
        ("batch", view.task.get("batch"), after.batch),
        ("environment", view.environment, (after.environment,) if after.environment else ()),
    ):
        if wanted:
            yield _one_of(f"after.{key}", value, wanted)
    yield from _tags(view, after.tags)
    yield from _metadata(view, after.metadata)
    yield _state(view, after.state)


def _started(view: View, workflow: Workflow) -> Condition:
    """Return whether the view is of an input of this workflow."""
    if view.type != INPUT:
        return Condition(
            "start", False, f"only inputs of the workflow start this step, and this is a {view.type}"
        )
    given_to = (view.task.get("metadata") or {}).get("workflow")
    return Condition("start", given_to == workflow.name, f"an input of the workflow {given_to}")


def _tags(view: View, wanted: tuple[str, ...]) -> Iterator[Condition]:
    if wanted:
        tags = view.task["tags"] if isinstance(view.task.get("tags"), list) else []
        missing = [tag for tag in wanted if tag not in tags]
        why = f"{', '.join(missing)} missing" if missing else "the task has all tags"
        yield Condition("after.tags", not missing, why)


def _metadata(view: View, wanted: Any) -> Iterator[Condition]:
    metadata = view.task.get("metadata")
    for key, values in wanted.items():
        value = metadata.get(key) if isinstance(metadata, dict) else None
        yield _one_of(
            f"after.metadata.{key}", value, tuple(values) if isinstance(values, list) else (values,)
        )


def _state(view: View, wanted: tuple[str, ...]) -> Condition:
    found = states(view)
    why = f"the task is {', '.join(sorted(found)) or 'in none of the states'}; expected {' or '.join(wanted)}"
    return Condition("after.state", bool(found & set(wanted)), why)


def _one_of(name: str, value: Any, wanted: tuple[Any, ...]) -> Condition:
    is_met = any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in wanted)
    found = "is not set" if value is None else f"is {value!r}"
    return Condition(name, is_met, f"{found}; expected {' or '.join(map(repr, wanted))}")


def source_step(view: View, workflow: Workflow) -> str | None:
    """Return the step of this workflow that created the task, or None."""
    return view.source.step if view.source and view.source.workflow == workflow.name else None


def _started_by_error(view: View, workflow: Workflow, step: Step) -> bool:
    created_by = workflow.step(source_step(view, workflow) or "")
    return created_by is not None and created_by.on_error.step == step.name and ERROR in states(view)


def states(view: View) -> frozenset[str]:
    """Return the states of a result. They describe the present, whatever happened before."""
    if view.recalled:
        return frozenset({RECALLED})
    found = {view.review} & {ACCEPTED, REJECTED, FIXED}
    if view.error is not None or view.task.get("status") == "error":
        found.add(ERROR)
    elif view.response is not None and not _is_canceled(view):
        found.add(COMPLETED)
    return frozenset(state for state in found if state)


def _is_canceled(view: View) -> bool:
    """Return whether the task was canceled: its status says so, or its response says that and nothing else."""
    return view.task.get("status") == "canceled" or only_says_canceled(view.response)


def _drawn(workflow: str, step: str, task_id: str) -> float:
    """Return a number from 0 to 1 that depends on the task and the step alone."""
    return int.from_bytes(hashlib.sha256(f"{workflow}.{step}.{task_id}".encode()).digest()[:8]) / 2**64


def steps_to_cancel(view: View, workflow: Workflow) -> list[str]:
    """Return the steps whose follow-ups of this task are canceled because it was recalled."""
    if RECALLED not in states(view):
        return []
    return [step.name for step in workflow.steps if step.on_recall == "cancel"]
