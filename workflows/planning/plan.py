"""Decides which tasks follow a result. Pure and deterministic: the same view and workflow give the same follow-ups.

Called when a result is complete; pipeline/follow_ups/recording.py stores what is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workflows.definition.expressions import ExpressionError
from workflows.definition.interpreter import plan_budget
from workflows.definition.model import DEFAULT_MAX_DEPTH, OnEnd, Step, Workflow
from workflows.definition.recipes import RequestFile, mirrored, split_files
from workflows.definition.templates import render
from workflows.planning.conditions import Condition, conditions, source_step, states
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
from workflows.planning.view import Source, StepScope, View

PLANNED, HELD, SKIPPED = "planned", "held", "skipped"


@dataclass(frozen=True, slots=True)
class PlannedFollowUp:
    """One task that a step creates."""

    unique_id: str
    workflow: str
    digest: str  # of the workflow's file
    step: str
    source_task_id: str
    source_annotation: str | None  # uuid or digest of the annotation; digest of the label or item; the frame
    source_response: str | None  # digest of the response
    task_type: str
    request: dict[str, Any]  # the body without callback_url and unique_id; null in place of each file
    state: str  # planned | held | skipped
    reason_code: ReasonCode | None = None
    reason: str | None = None
    depth: int = 1  # tasks from the first one to this, itself included
    files: tuple[RequestFile, ...] = ()  # the files of the request
    attempt: int = 1  # 2, 3 … for the retries of a request
    first_unique_id: str | None = None  # of the first attempt; None: this is the first


def plan(view: View, workflow: Workflow, prefix: str = "") -> list[PlannedFollowUp]:
    """Return the follow-ups of one result in the order of the file, each with another unique_id.

    prefix: UNIQUE_ID_PREFIX. A step with a `join` depends on many results: see workflows/planning/joins.py.
    """
    found: dict[str, PlannedFollowUp] = {}
    with plan_budget():
        for step in workflow.steps:
            for follow_up in follow_ups_of_step(view, workflow, step, prefix):
                found.setdefault(follow_up.unique_id, follow_up)
    return list(found.values())


def follow_ups_of_step(
    view: View, workflow: Workflow, step: Step, prefix: str = ""
) -> Iterator[PlannedFollowUp]:
    """Yield the follow-ups of one step."""
    key = (workflow.name, step.name, id_segment(view.task_id))
    try:
        yield from _retry(view, workflow, step)
        if step.join is None:
            yield from _follow_ups_of_result(view, workflow, step, prefix, key)
    except MissingFile as missing:
        yield incomplete_follow_up(view, workflow, step, prefix, key, missing)


def incomplete_follow_up(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], missing: MissingFile
) -> PlannedFollowUp:
    """Return the held follow-up of a step whose requests are unknown until the missing file is there."""
    return _follow_up(view, workflow, step, prefix, key, held_request(step, missing))


def invalid_follow_up(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], condition: Condition
) -> PlannedFollowUp:
    """Return the skipped follow-up of a step with a condition that cannot be evaluated for this result."""
    request = skipped_request(step, f"{condition.name}: {condition.why}")
    return _follow_up(view, workflow, step, prefix, key, request)


def _follow_ups_of_result(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...]
) -> Iterator[PlannedFollowUp]:
    for condition in conditions(view, workflow, step):
        if condition.held is None:
            yield invalid_follow_up(view, workflow, step, prefix, key, condition)
        if not condition.held:
            return
    yield from requested_follow_ups(view, workflow, step, prefix, key)


def requested_follow_ups(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], own: Mapping[str, Any] = {}, held: Reason | None = None,
) -> Iterator[PlannedFollowUp]:  # fmt: skip
    """Yield the follow-ups of a step whose conditions are met, for each element and copy.

    key: the first segments of their unique_ids. own: names that the step adds to the view. held: why they must be held.
    """
    try:
        found = list(requests_from_python(view, step) if step.python else requests(view, step, own))
    except ExpressionError as error:
        found = [skipped_request(step, str(error))]
    for request in found:
        yield _follow_up(view, workflow, step, prefix, key, request, held)


def _follow_up(
    view: View, workflow: Workflow, step: Step, prefix: str, key: tuple[str, ...], request: TaskRequest, held: Reason | None = None,
) -> PlannedFollowUp:  # fmt: skip
    state, reason = _state(workflow, step, view.depth + 1, held or view.held)
    if request.fault:
        state, reason = SKIPPED, Reason(ReasonCode.INVALID, request.fault)
    elif request.held:
        state, reason = HELD, request.held
    notes = () if request.fault else request.notes
    repeated = (response_segment(view.digest),) if step.each_response else ()
    return PlannedFollowUp(
        unique_id=unique_id(prefix, *key, *request.key, *repeated),
        workflow=workflow.name,
        digest=workflow.digest,
        step=step.name,
        source_task_id=view.task_id,
        source_annotation=request.element,
        source_response=view.digest,
        task_type=request.task_type,
        request=request.request,
        files=request.files,
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
        return HELD, Reason(ReasonCode.DEPTH, f"depth {depth} exceeds the limit of {most}")
    if held is None and step.hold:
        held = Reason(ReasonCode.HOLD, "waits for approval")
    return (HELD, held) if held else (PLANNED, None)


def _retry(view: View, workflow: Workflow, step: Step) -> Iterator[PlannedFollowUp]:
    """Yield the retry of a task that failed or was rejected: a follow-up of the same source, with a changed request."""
    source = view.source
    if source is None or source_step(view, workflow) != step.name:
        return
    ended = states(view)
    if source.attempt > sum(end.times for end in step.retries.values()):
        return
    for state, end in step.retries.items():
        before = sum(state in states(attempt) for attempt in view.earlier_attempts)
        if state in ended and before < end.times:
            yield _retried(view, workflow, step, source, end, before + 1)
            return


def _retried(
    view: View, workflow: Workflow, step: Step, source: Source, end: OnEnd, number: int
) -> PlannedFollowUp:
    first = source.first_unique_id or source.unique_id
    request, files, fault = _retried_request(view, source, end)
    state, reason = _state(workflow, step, view.depth, view.held)
    if fault:
        state, reason = SKIPPED, Reason(ReasonCode.INVALID, fault)
    return PlannedFollowUp(
        unique_id=f"{first}.retry-{source.attempt}",
        workflow=workflow.name,
        digest=workflow.digest,
        step=step.name,
        source_task_id=source.task_id,
        source_annotation=source.annotation,
        source_response=source.response,
        task_type=view.type or "",
        request=request,
        files=files,
        state=state,
        reason_code=reason and reason.code,
        reason=reason.text if reason else f"retry {number} of {end.times}",
        depth=view.depth,
        attempt=source.attempt + 1,
        first_unique_id=first,
    )


def _retried_request(
    view: View, source: Source, end: OnEnd
) -> tuple[dict[str, Any], tuple[RequestFile, ...], str | None]:
    """Return (request, its files, why it cannot be sent)."""
    scope = StepScope(view, {"previous": view, "attempt": source.attempt + 1})
    try:
        changes = {} if end.params is None else render(end.params, scope)
        if not isinstance(changes, dict):
            raise ExpressionError("params are not a mapping")
        request, files = split_files(mirrored({**source.full_request(), **changes}, end.mirror))
    except ExpressionError as error:
        return {}, (), f"{end.key}: {error}"
    return request, files, rejection_reason(view.type or "", request, files)
