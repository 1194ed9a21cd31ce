"""Decides which tasks follow a result. Pure and deterministic: the same view and workflow give the same follow-ups.

Stands where a result is whole, before pipeline/follow_ups.py records what is decided here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from scale.envelope import response_digest
from workflows.expressions import ExpressionError, names_in, render
from workflows.view import View
from workflows.workflow import (
    ACCEPTED,
    COMPLETED,
    DEPTH,
    ERROR,
    FIXED,
    RECALLED,
    REJECTED,
    ForEach,
    Step,
    Workflow,
)

PLANNED, HELD, SKIPPED = "planned", "held", "skipped"

LONGEST = 120  # characters of a unique_id


@dataclass(frozen=True, slots=True)
class FollowUp:
    """One task that a step asks for."""

    unique_id: str
    workflow: str
    digest: str  # of the workflow's file
    step: str
    source_task_id: str
    source_annotation: (
        str | None
    )  # uuid or digest of the annotation, digest of the label or item, or the frame
    source_response: str | None  # digest of the response
    task_type: str
    request: dict[
        str, Any
    ]  # the body without callback_url and unique_id; where a file must be made, its recipe
    state: str  # planned | held | skipped
    reason: str | None = None


class Condition(NamedTuple):
    """One thing that a step asks of a result, and whether it is so."""

    name: str  # "after.type", "when", "sample", …
    held: bool | None  # None: it could not be evaluated
    why: str


class Names:
    """The view of a result, and what a step adds to it."""

    __slots__ = ("_own", "_view")

    def __init__(self, view: View, own: Mapping[str, Any]) -> None:
        self._view = view
        self._own = own

    def get(self, name: str) -> Any:
        return self._own[name] if name in self._own else self._view.get(name)


def plan(view: View, workflow: Workflow, prefix: str = "") -> list[FollowUp]:
    """The follow-ups of one result, in the order of the file; no two have the same unique_id.

    `prefix` is UNIQUE_ID_PREFIX. Steps with a `join` are not planned here: see workflows/join.py.
    """
    found: dict[str, FollowUp] = {}
    for step in workflow.steps:
        for follow_up in step_follow_ups(view, workflow, step, prefix):
            found.setdefault(follow_up.unique_id, follow_up)
    return list(found.values())


def step_follow_ups(view: View, workflow: Workflow, step: Step, prefix: str = "") -> Iterator[FollowUp]:
    """What one step wants of a result."""
    if step.join is not None:
        return
    for condition in conditions(view, workflow, step):
        if condition.held is None:
            yield _follow_up(
                view, workflow, step, (), {}, prefix, SKIPPED, f"{condition.name}: {condition.why}"
            )
        if not condition.held:
            return
    try:
        items = list(_items(view, step))
    except ExpressionError as error:
        yield _follow_up(view, workflow, step, (), {}, prefix, SKIPPED, str(error))
        return
    for key, own in items:
        for copy in range(1, (step.copies or 1) + 1):
            numbered = step.copies is not None and step.copies > 1
            parts = (*key, *((str(copy),) if numbered else ()))
            names = Names(view, {**own, "copy": copy})
            try:
                request, state, reason = _request(view, workflow, step, names)
            except ExpressionError as error:
                request, state, reason = {}, SKIPPED, str(error)
            yield _follow_up(
                view, workflow, step, parts, request, prefix, state, reason, key[0] if key else None
            )


# What a step asks of a result.


def conditions(view: View, workflow: Workflow, step: Step) -> Iterator[Condition]:
    """Each thing that a step asks of a result, in the order in which plan() looks: it stops at the first that fails."""
    after, task, source = step.after, view.task, view.source
    if (
        source
        and (source.workflow, source.step) == (workflow.name, step.name)
        and step.name not in after.step
    ):
        yield Condition("after", False, "the task was made by this step, which does not name itself")
    if after.type:
        yield _one_of("after.type", view.type, after.type)
    if after.step:
        made_by = source.step if source and source.workflow == workflow.name else None
        yield _one_of("after.step", made_by, after.step)
    if after.project:
        yield _one_of("after.project", task.get("project"), after.project)
    if after.batch:
        yield _one_of("after.batch", task.get("batch"), after.batch)
    if after.environment:
        yield _one_of("after.environment", view.environment, (after.environment,))
    if after.tags:
        tags = task.get("tags") or ()
        missing = [tag for tag in after.tags if tag not in tags]
        yield Condition(
            "after.tags", not missing, f"{', '.join(missing)} missing" if missing else "all there"
        )
    metadata = _mapping(task.get("metadata"))
    for key, wanted in after.metadata.items():
        yield _one_of(
            f"after.metadata.{key}",
            metadata.get(key),
            tuple(wanted) if isinstance(wanted, list) else (wanted,),
        )
    states = levels(view)
    yield Condition(
        "after.state",
        bool(states & set(after.state)),
        f"it is {', '.join(sorted(states)) or 'at no level yet'}; wanted {' or '.join(after.state)}",
    )
    if step.when is not None:
        try:
            yield Condition("when", step.when.holds(view), step.when.source)
        except ExpressionError as error:
            yield Condition("when", None, str(error))
    if step.sample is not None:
        drawn = _drawn(workflow.name, step.name, view.task_id)
        yield Condition("sample", drawn < step.sample, f"drew {drawn:.4f} of the share {step.sample:g}")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _one_of(name: str, value: Any, wanted: tuple[Any, ...]) -> Condition:
    held = any(value == word and isinstance(value, bool) == isinstance(word, bool) for word in wanted)
    return Condition(name, held, f"it is {value!r}; wanted {' or '.join(map(repr, wanted))}")


def levels(view: View) -> frozenset[str]:
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


# What it fans out over.


def _items(view: View, step: Step) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """(identity, names) of each element of the fan-out; one without a fan-out. Each identity comes once."""
    if step.for_each is None:
        if step.where is None or step.where.holds(view):
            yield (), {}
        return
    seen: set[str] = set()
    for key, own in _elements(view, step.for_each):
        if key not in seen and (step.where is None or step.where.holds(Names(view, own))):
            seen.add(key)
            yield (key,), own


def _elements(view: View, each: ForEach) -> Iterator[tuple[str, dict[str, Any]]]:
    match each.kind:
        case "annotation":
            for annotation in view.annotations:
                yield annotation_key(annotation), {"annotation": annotation, "item": annotation}
        case "label":
            labels = {annotation.get("label"): None for annotation in view.annotations}
            for label in (label for label in labels if isinstance(label, str)):
                yield digest_of(label), {"label": label, "item": label}
        case "frame":
            frames = {annotation.get("frame") for annotation in view.annotations}
            for frame in sorted(frame for frame in frames if isinstance(frame, int)):
                yield str(frame), {"frame": frame, "item": frame}
        case _:
            assert each.list is not None
            values = each.list.evaluate(view)
            if values is not None and not isinstance(values, list):
                raise ExpressionError(f"for_each: `{each.list.source}` gives no list")
            for value in values or ():
                yield digest_of(value), {"item": value}


# Who a follow-up is.


def digest_of(value: Any) -> str:
    """A short digest of any JSON value: the same for the same value, in whatever order its keys come."""
    return response_digest(value)[:16]


def annotation_key(annotation: Mapping[str, Any]) -> str:
    """The annotation's uuid, or a digest of it when it has none that can stand in a unique_id."""
    uuid = annotation.get("uuid")
    return _part(uuid) if isinstance(uuid, str) and uuid else digest_of(annotation)


def _part(word: str) -> str:
    """A word as a part of a unique_id; one that could not stand there gives its digest."""
    return word if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", word) else digest_of(word)


def identity(view: View, workflow: Workflow, step: Step, parts: tuple[str, ...], prefix: str) -> str:
    """`<workflow>.<step>.<source>`, at most 120 characters of [A-Za-z0-9._-]."""
    repeated = (digest_of(view.response),) if step.each_response else ()
    return prefix + ".".join((workflow.name, step.name, _part(view.task_id), *parts, *repeated))


def _follow_up(
    view: View, workflow: Workflow, step: Step, parts: tuple[str, ...], request: dict[str, Any], prefix: str, state: str, reason: str | None, element: str | None = None,
) -> FollowUp:  # fmt: skip
    return FollowUp(
        unique_id=identity(view, workflow, step, parts, prefix),
        workflow=workflow.name,
        digest=workflow.digest,
        step=step.name,
        source_task_id=view.task_id,
        source_annotation=element,
        source_response=view.digest,
        task_type=step.create.type if step.create else "",
        request=request,
        state=state,
        reason=reason,
    )


# What it asks for.


def _request(
    view: View, workflow: Workflow, step: Step, names: Names
) -> tuple[dict[str, Any], str, str | None]:
    """The request of one follow-up, its state and the reason for it."""
    assert step.create is not None
    request = render(step.create.params, names)
    if not isinstance(request, dict):
        raise ExpressionError("params give no mapping")
    notes: list[str] = []
    if "layers" in names_in(step.create.params):
        notes = view.layer_notes
        if notes and not view.layers:
            return request, SKIPPED, f"nothing is left to send: {'; '.join(notes)}"
    state, reason = _state(view, workflow, step)
    return request, state, "; ".join([*([reason] if reason else []), *notes]) or None


def _state(view: View, workflow: Workflow, step: Step) -> tuple[str, str | None]:
    most = step.limits.depth or workflow.limits.depth or DEPTH
    if step.dry_run:
        return SKIPPED, "dry run"
    if view.depth + 1 > most:
        return HELD, f"it would be {view.depth + 1} tasks away from the first one, and the limit is {most}"
    if view.held:
        return HELD, view.held
    return (HELD, "waits for approval") if step.hold else (PLANNED, None)
