"""Decides which tasks follow a result. Pure and deterministic: the same view and workflow give the same follow-ups.

Stands where a result is whole, before pipeline/follow_ups/recording.py records what is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workflows.definition.expressions import ExpressionError, render
from workflows.definition.model import DEFAULT_MAX_DEPTH, ERROR, Step, Workflow
from workflows.definition.recipes import mirrored
from workflows.planning.conditions import conditions, source_step, states
from workflows.planning.identity import id_segment, response_segment, split_retry, unique_id
from workflows.planning.requests import (
    TaskRequest,
    rejection_reason,
    requests,
    requests_from_python,
    skipped_request,
)
from workflows.planning.view import View

PLANNED, HELD, SKIPPED = "planned", "held", "skipped"


@dataclass(frozen=True, slots=True)
class PlannedFollowUp:
    """One task that a step asks for."""

    unique_id: str
    workflow: str
    digest: str  # of the workflow's file
    step: str
    source_task_id: str
    source_annotation: str | None  # uuid or digest of the annotation; digest of the label or item; the frame
    source_response: str | None  # digest of the response
    task_type: str
    request: dict[str, Any]  # the body without callback_url and unique_id; recipes where files will be
    state: str  # planned | held | skipped
    reason: str | None = None
    depth: int = 1  # tasks from the first one to this, itself included


def plan(view: View, workflow: Workflow, prefix: str = "") -> list[PlannedFollowUp]:
    """The follow-ups of one result, in the order of the file; no two have the same unique_id.

    `prefix` is UNIQUE_ID_PREFIX. A step with a `join` looks at many results together: see workflows/planning/joins.py.
    """
    found: dict[str, PlannedFollowUp] = {}
    for step in workflow.steps:
        for follow_up in follow_ups_of_step(view, workflow, step, prefix):
            found.setdefault(follow_up.unique_id, follow_up)
    return list(found.values())


def follow_ups_of_step(
    view: View, workflow: Workflow, step: Step, prefix: str = ""
) -> Iterator[PlannedFollowUp]:
    """What one step wants of a result."""
    yield from _retried(view, workflow, step)
    if step.join is not None:
        return
    key = (workflow.name, step.name, id_segment(view.task_id))
    for condition in conditions(view, workflow, step):
        if condition.held is None:
            why = f"{condition.name}: {condition.why}"
            yield _follow_up(view, workflow, step, prefix, key, skipped_request(step, why))
        if not condition.held:
            return
    yield from requested_follow_ups(view, workflow, step, prefix, key)


def requested_follow_ups(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], own: Mapping[str, Any] = {}, held: str | None = None,
) -> Iterator[PlannedFollowUp]:  # fmt: skip
    """The follow-ups of a step whose conditions hold, for each element and copy. `key` begins their identity; `own` are
    names that the step has beside the view; `held` makes them wait, with that reason."""
    try:
        wanted = list(requests_from_python(view, step) if step.python else requests(view, step, own))
    except ExpressionError as error:
        wanted = [skipped_request(step, str(error))]
    for one in wanted:
        yield _follow_up(view, workflow, step, prefix, key, one, held)


def _follow_up(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], wanted: TaskRequest, held: str | None = None,
) -> PlannedFollowUp:  # fmt: skip
    state, reason = _state(workflow, step, view.depth + 1, held or view.held)
    repeated = (response_segment(view.digest),) if step.each_response else ()
    return PlannedFollowUp(
        unique_id=unique_id(prefix, *key, *wanted.key, *repeated),
        workflow=workflow.name,
        digest=workflow.digest,
        step=step.name,
        source_task_id=view.task_id,
        source_annotation=wanted.element,
        source_response=view.digest,
        task_type=wanted.task_type,
        request=wanted.request,
        state=SKIPPED if wanted.fault else state,
        reason=wanted.fault or "; ".join([*([reason] if reason else []), *wanted.notes]) or None,
        depth=view.depth + 1,
    )


def _state(workflow: Workflow, step: Step, depth: int, held: str | None) -> tuple[str, str | None]:
    most = step.limits.depth or workflow.limits.depth or DEFAULT_MAX_DEPTH
    if step.dry_run:
        return SKIPPED, "dry run"
    if depth > most:
        return HELD, f"it would be {depth} tasks away from the first one, and the limit is {most}"
    return (HELD, held or "waits for approval") if held or step.hold else (PLANNED, None)


def _retried(view: View, workflow: Workflow, step: Step) -> Iterator[PlannedFollowUp]:
    """The request of a failed task once more, as `on_error` wants it: a follow-up of the same source."""
    source, on_error = view.source, step.on_error
    if (
        source is None
        or source_step(view, workflow) != step.name
        or on_error.do != "retry"
        or ERROR not in states(view)
    ):
        return
    first, retries = split_retry(source.unique_id)
    if retries >= on_error.times:
        return
    request: dict[str, Any] = {}
    fault: str | None = None
    try:
        changes = {} if on_error.params is None else render(on_error.params, view)
        if not isinstance(changes, dict):
            raise ExpressionError("params are no mapping")
        request = mirrored({**source.request, **changes}, on_error.mirror)
        fault = rejection_reason(view.type or "", request)
    except ExpressionError as error:
        fault = f"on_error: {error}"
    state, reason = (SKIPPED, fault) if fault else _state(workflow, step, view.depth, view.held)
    yield PlannedFollowUp(
        unique_id=f"{first}.retry-{retries + 1}",
        workflow=workflow.name,
        digest=workflow.digest,
        step=step.name,
        source_task_id=source.task_id,
        source_annotation=source.annotation,
        source_response=source.response,
        task_type=view.type or "",
        request=request,
        state=state,
        reason=reason or f"retry {retries + 1} of {on_error.times}",
        depth=view.depth,
    )
