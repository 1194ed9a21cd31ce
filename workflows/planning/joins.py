"""Decides what becomes of a fan-out: whether its tasks are awaited, and what follows from all of them together. Pure.

pipeline/ stores a row for each join, locks it whenever one of its tasks changes or its deadline passes, and calls
`decide_join`. When that says fire or hold, it calls `plan_join`, once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from workflows.definition.interpreter import plan_budget
from workflows.definition.model import ERROR, Join, Step, Workflow
from workflows.definition.reducers import find_reducer
from workflows.planning.conditions import Condition, conditions, states
from workflows.planning.identity import id_segment, response_segment, unique_id
from workflows.planning.plan import (
    PlannedFollowUp,
    incomplete_follow_up,
    invalid_follow_up,
    requested_follow_ups,
)
from workflows.planning.reasons import MissingFile, Reason, ReasonCode
from workflows.planning.requests import names_used
from workflows.planning.view import Source, StepScope, View

WAIT, FIRE, HOLD, STOP = "wait", "fire", "hold", "stop"

LOST = ("failed", "skipped", "canceled", "error")
"""States of a follow-up from which no result can come."""


class NewJoin(NamedTuple):
    """A join over a planned fan-out: one row, by its key."""

    key: str  # the join's identity, in the form of a unique_id
    workflow: str
    step: str  # the step with `join`
    source_task_id: str  # the task that was fanned out
    part: str | None  # with `over: copies` the element whose copies are joined
    children: tuple[str, ...]  # unique_ids of the awaited follow-ups
    within: int | None  # seconds from now to the deadline


class Child(NamedTuple):
    """One follow-up of a fan-out, in its current state."""

    unique_id: str
    state: str  # of the follow-up
    view: View | None = None  # of its task, with `source`; None before there is one
    attempt: int = 1
    first_unique_id: str | None = None

    @property
    def first(self) -> str:
        """Return the unique_id of the first attempt."""
        return self.first_unique_id or self.unique_id


class Verdict(NamedTuple):
    """What to do with a join now."""

    do: str  # wait | fire | hold (fire, and hold what follows) | stop (nothing will follow)
    why: str
    children: tuple[Child, ...]  # those whose results count, in the order of their unique_ids
    is_short: bool = False  # fewer results than needed: at the deadline, or because no more can come


AGREED, DISAGREED, DEADLINE = CONCLUSIONS = ("agreed", "disagreed", "deadline")
AGREED_FROM = 0.8
"""The least `agreement` of a reducer that counts as agreed."""


def conclusion(verdict: Verdict, reduced: Mapping[str, Any] | None) -> str | None:
    """Return what a join came to: deadline, agreed or disagreed; None if its results are not compared."""
    if verdict.is_short:
        return DEADLINE
    agreement = (reduced or {}).get("agreement")
    if not isinstance(agreement, int | float):
        return None
    return AGREED if agreement >= AGREED_FROM else DISAGREED


@dataclass(frozen=True, slots=True)
class JoinOutcome:
    """What follows from a join that fired."""

    follow_ups: tuple[PlannedFollowUp, ...]
    reduced: dict[str, Any] | None  # the output of the reducer
    reason: str | None  # why there is no follow-up; None if there is one
    conditions: tuple[Condition, ...] = ()
    scope: StepScope | None = None  # what the conditions saw
    is_incomplete: bool = False  # a result file is missing: the join stays open until it is there


def joins_for(follow_ups: Sequence[PlannedFollowUp], workflow: Workflow, prefix: str = "") -> list[NewJoin]:
    """Return the joins over the follow-ups that `plan` gave for one result; none for an empty fan-out.

    A later response of the same source may add children: a row that has not fired takes them in.
    """
    found: dict[str, NewJoin] = {}
    for follow_up in follow_ups:
        source = Source(
            workflow.name, follow_up.step, follow_up.unique_id, follow_up.source_task_id,
            follow_up.source_annotation, follow_up.source_response,
        )  # fmt: skip
        for key, step in joins_of(source, workflow, prefix):
            assert step.join is not None
            join = found.get(key) or NewJoin(
                key, workflow.name, step.name, source.task_id, _part(step.join, source), (), step.join.within
            )
            children = (*join.children, follow_up.first_unique_id or follow_up.unique_id)
            found[key] = join._replace(children=tuple(dict.fromkeys(children)))
    return list(found.values())


def joins_of(source: Source, workflow: Workflow, prefix: str = "") -> Iterator[tuple[str, Step]]:
    """Yield the joins (key, step) that await the task of a follow-up."""
    created_by = workflow.step(source.step)
    if source.workflow != workflow.name or created_by is None:
        return
    for step in workflow.steps:
        if step.join is not None and step.after is not None and source.step in step.after.step:
            part = _part(step.join, source)
            segments = [id_segment(source.task_id), *([part] if part is not None else [])]
            if created_by.each_response:
                segments.append(response_segment(source.response))
            yield unique_id(prefix, workflow.name, step.name, *segments), step


def _part(join: Join, source: Source) -> str | None:
    return source.annotation if join.over == "copies" else None


def decide_join(workflow: Workflow, step: Step, children: Sequence[Child], overdue: bool = False) -> Verdict:
    """Return whether a join waits, fires or stops. `children`: all of its follow-ups, retries among them."""
    join, after = step.join, step.after
    assert join is not None
    assert after is not None
    latest = _latest_attempts(children)
    arrived = tuple(child for child in latest if child.view and states(child.view) & set(after.state))
    ids = {child.unique_id for child in arrived}
    awaited = workflow.step(after.step[0])
    is_coming = any(child.unique_id not in ids and not _is_lost(child, awaited, children) for child in latest)
    needed = results_needed(join, len(latest))
    why = f"{len(arrived)} of {len(latest)} tasks are {' or '.join(after.state)}"
    if arrived and len(arrived) >= needed:
        return Verdict(FIRE, why, arrived)
    if is_coming and not overdue:
        return Verdict(WAIT, f"{why}; waiting for {needed}", arrived)
    why = f"{why} {'at the deadline' if overdue else 'and no more can come'}; expected {needed}"
    if not arrived or join.on_deadline == "stop":
        return Verdict(STOP, why, arrived, is_short=True)
    return Verdict(HOLD if join.on_deadline == "hold" else FIRE, why, arrived, is_short=True)


def _latest_attempts(children: Sequence[Child]) -> list[Child]:
    """Return the last retry of each child."""
    latest: dict[str, Child] = {}
    for child in sorted(children, key=lambda child: (child.first, child.attempt)):
        latest[child.first] = child
    return list(latest.values())


def results_needed(join: Join, children: int) -> int:
    """Return the number of results that a join of that many children waits for."""
    return join.wait or math.ceil(round((join.quorum or 1) * children, 6))


def _is_lost(child: Child, step: Step | None, children: Sequence[Child]) -> bool:
    """Return whether no result can come from a child. One that will be retried is not lost."""
    if child.state not in LOST:
        return False
    if step is None or child.state != ERROR:
        return True
    errors = sum(other.first == child.first and other.state == ERROR for other in children)
    return errors > step.on_error.times


def plan_join(
    view: View, workflow: Workflow, step: Step, verdict: Verdict, key: str, prefix: str = ""
) -> JoinOutcome:
    """Return what follows from a join that fires or holds. `view` is of the task that was fanned out, `key` the join's."""
    segments = tuple(key[len(prefix) :].split("."))
    try:
        with plan_budget():
            return _plan_results(view, workflow, step, verdict, segments, prefix)
    except MissingFile as missing:
        held = incomplete_follow_up(view, workflow, step, prefix, segments, missing)
        condition = Condition("files", None, str(missing))
        return JoinOutcome((held,), None, str(missing), (condition,), is_incomplete=True)


def _plan_results(
    view: View, workflow: Workflow, step: Step, verdict: Verdict, segments: tuple[str, ...], prefix: str
) -> JoinOutcome:
    assert step.join is not None
    uses_results = step.join.reduce is not None or step.python or names_used(step) & {"results", "reduced"}
    results = list(_results(view, verdict.children)) if uses_results else []
    reduced: dict[str, Any] | None = None
    if step.join.reduce is not None and (reducer := find_reducer(step.join.reduce.by)) is not None:
        reduced = reducer.reduce(results, {**reducer.options, **step.join.reduce.options})
    own = {"results": results, "reduced": reduced}
    scope, checked = StepScope(view, own), list[Condition]()
    for condition in conditions(view, workflow, step, scope):
        checked.append(condition)
        reason = f"{condition.name}: {condition.why}"
        if condition.held is None:
            invalid = invalid_follow_up(view, workflow, step, prefix, segments, condition)
            return JoinOutcome((invalid,), reduced, reason, tuple(checked), scope)
        if not condition.held:
            return JoinOutcome((), reduced, reason, tuple(checked), scope)
    held = None
    if verdict.do == HOLD:
        held = Reason(ReasonCode.JOIN, f"the join is incomplete: {verdict.why}")
    follow_ups = tuple(requested_follow_ups(view, workflow, step, prefix, segments, own, held))
    ended = None if follow_ups else "the step creates no task"
    return JoinOutcome(follow_ups, reduced, ended, tuple(checked), scope)


def _results(view: View, children: Sequence[Child]) -> Iterator[dict[str, Any]]:
    """Yield each result as expressions and reducers see it: `annotations` are in coordinates of the source image."""
    for child in children:
        if child.view is not None:
            source = child.view.source
            element = view.elements.get(source.annotation or "") if source else None
            yield {
                "task_id": child.view.task_id,
                "unique_id": child.unique_id,
                "task": child.view.task,
                "response": child.view.response,
                "answer": child.view.answer,
                "annotations": child.view.uncropped,
                "element": source.annotation if source else None,
                "annotation": element.annotation if element else None,
            }
