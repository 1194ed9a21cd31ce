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
from workflows.planning.identity import id_segment, response_segment, unique_id
from workflows.planning.reasons import MissingFile, Reason, ReasonCode
from workflows.planning.requests import (
    TaskRequest,
    held_request,
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
    reason_code: ReasonCode | None = None
    reason: str | None = None
    depth: int = 1  # tasks from the first one to this, itself included
    attempt: int = 1  # 2, 3 … for the retries of a request
    first_unique_id: str | None = None  # of the first attempt; None: this is the first


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
    key = (workflow.name, step.name, id_segment(view.task_id))
    try:
        yield from _retried(view, workflow, step)
        if step.join is None:
            yield from _follow_ups_of_result(view, workflow, step, prefix, key)
    except MissingFile as missing:
        yield incomplete_follow_up(view, workflow, step, prefix, key, missing)


def incomplete_follow_up(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], missing: MissingFile
) -> PlannedFollowUp:
    """Return the held follow-up of a step whose requests are unknown until the missing file is there."""
    return _follow_up(view, workflow, step, prefix, key, held_request(step, missing))


def _follow_ups_of_result(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...]
) -> Iterator[PlannedFollowUp]:
    for condition in conditions(view, workflow, step):
        if condition.held is None:
            why = f"{condition.name}: {condition.why}"
            yield _follow_up(view, workflow, step, prefix, key, skipped_request(step, why))
        if not condition.held:
            return
    yield from requested_follow_ups(view, workflow, step, prefix, key)


def requested_follow_ups(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], own: Mapping[str, Any] = {}, held: Reason | None = None,
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
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], wanted: TaskRequest, held: Reason | None = None,
) -> PlannedFollowUp:  # fmt: skip
    state, reason = _state(workflow, step, view.depth + 1, held or view.held)
    if wanted.fault:
        state, reason = SKIPPED, Reason(ReasonCode.INVALID, wanted.fault)
    elif wanted.held:
        state, reason = HELD, wanted.held
    notes = [] if wanted.fault else wanted.notes
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
        state=state,
        reason_code=reason and reason.code,
        reason="; ".join([*([reason.text] if reason else []), *notes]) or None,
        depth=view.depth + 1,
    )


def _state(workflow: Workflow, step: Step, depth: int, held: Reason | None) -> tuple[str, Reason | None]:
    most = step.limits.depth or workflow.limits.depth or DEFAULT_MAX_DEPTH
    if step.dry_run:
        return SKIPPED, Reason(ReasonCode.DRY_RUN, "dry run")
    if depth > most:
        text = f"it would be {depth} tasks away from the first one, and the limit is {most}"
        return HELD, Reason(ReasonCode.DEPTH, text)
    if held is None and step.hold:
        held = Reason(ReasonCode.HOLD, "waits for approval")
    return (HELD, held) if held else (PLANNED, None)


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
    first, retries = source.first_unique_id or source.unique_id, source.attempt - 1
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
    state, reason = _state(workflow, step, view.depth, view.held)
    if fault:
        state, reason = SKIPPED, Reason(ReasonCode.INVALID, fault)
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
        reason_code=reason and reason.code,
        reason=reason.text if reason else f"retry {retries + 1} of {on_error.times}",
        depth=view.depth,
        attempt=source.attempt + 1,
        first_unique_id=first,
    )
