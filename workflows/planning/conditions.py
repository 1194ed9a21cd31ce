"""What a step asks of a result: each condition by itself, so that plan() can stop at one and `explain` can tell them all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from workflows.definition.expressions import ExpressionError
from workflows.definition.model import ACCEPTED, COMPLETED, ERROR, FIXED, RECALLED, REJECTED, Step, Workflow
from workflows.planning.view import StepScope, View


class Condition(NamedTuple):
    """One thing that a step asks of a result, and whether it is so."""

    name: str  # "after.type", "when", "sample", …
    held: bool | None  # None: it could not be evaluated
    why: str


def conditions(
    view: View, workflow: Workflow, step: Step, joined: StepScope | None = None
) -> Iterator[Condition]:
    """Each thing that a step asks of a result, in the order in which plan() looks: it stops at the first that fails.

    `joined`: names of a join that fires; whom it looks at was asked of its children then, not of the view.
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
        yield Condition("sample", drawn < step.sample, f"drew {drawn:.4f}; below {step.sample:g} is taken")


def _after(view: View, workflow: Workflow, step: Step) -> Iterator[Condition]:
    after, task, made_by = step.after, view.task, source_step(view, workflow)
    if after is None:
        yield Condition("after", False, "only an `on_error` starts this step")
        return
    itself = made_by == step.name
    if itself and step.name not in after.step:
        yield Condition("after", False, "this step made the task, and does not name itself")
    if after.type:
        yield _one_of("after.type", view.type, after.type)
    if others := [name for name in after.step if name != step.name]:
        yield _one_of("after.step", made_by, after.step if itself else tuple(others))
    if after.project:
        yield _one_of("after.project", task.get("project"), after.project)
    if after.batch:
        yield _one_of("after.batch", task.get("batch"), after.batch)
    if after.environment:
        yield _one_of("after.environment", view.environment, (after.environment,))
    if after.tags:
        tags = task["tags"] if isinstance(task.get("tags"), list) else []
        missing = [tag for tag in after.tags if tag not in tags]
        yield Condition(
            "after.tags", not missing, f"without {', '.join(missing)}" if missing else "all there"
        )
    metadata = task.get("metadata")
    for key, wanted in after.metadata.items():
        value = metadata.get(key) if isinstance(metadata, dict) else None
        yield _one_of(
            f"after.metadata.{key}", value, tuple(wanted) if isinstance(wanted, list) else (wanted,)
        )
    holding = states(view)
    why = f"it is {', '.join(sorted(holding)) or 'none of the states'}; wanted {' or '.join(after.state)}"
    yield Condition("after.state", bool(holding & set(after.state)), why)


def _one_of(name: str, value: Any, wanted: tuple[Any, ...]) -> Condition:
    held = any(value == word and isinstance(value, bool) == isinstance(word, bool) for word in wanted)
    return Condition(name, held, f"it is {value!r}; wanted {' or '.join(map(repr, wanted))}")


def source_step(view: View, workflow: Workflow) -> str | None:
    """The step of this workflow that made the task."""
    return view.source.step if view.source and view.source.workflow == workflow.name else None


def _started_by_error(view: View, workflow: Workflow, step: Step) -> bool:
    made_by = workflow.step(source_step(view, workflow) or "")
    return made_by is not None and made_by.on_error.step == step.name and ERROR in states(view)


def states(view: View) -> frozenset[str]:
    """The states that hold of a result. Levels, not events: whatever came first, they say how it stands now."""
    if view.recalled:
        return frozenset({RECALLED})
    found = {view.review} & {ACCEPTED, REJECTED, FIXED}
    if view.error is not None or view.task.get("status") == "error":
        found.add(ERROR)
    elif view.response is not None and view.task.get("status") != "canceled":
        found.add(COMPLETED)
    return frozenset(state for state in found if state)


def _drawn(workflow: str, step: str, task_id: str) -> float:
    """A number from 0 to 1 that a task always draws at this step: two steps draw independently."""
    return int.from_bytes(hashlib.sha256(f"{workflow}.{step}.{task_id}".encode()).digest()[:8]) / 2**64


def steps_to_cancel(view: View, workflow: Workflow) -> list[str]:
    """The steps whose follow-ups of this task are to be canceled, since it was recalled."""
    if RECALLED not in states(view):
        return []
    return [step.name for step in workflow.steps if step.on_recall == "cancel"]
