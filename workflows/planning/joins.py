"""Decides what becomes of a fan-out: whether its tasks are waited for, and what follows from them together. Pure.

pipeline/ opens a join's row with the fan-out, locks it whenever one of its tasks changes or its deadline passes, and asks
here. `plan_join` is called once, when `settle` says that it fires.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from workflows.definition.model import ERROR, Join, Step, Workflow
from workflows.definition.reducers import find_reducer
from workflows.planning.conditions import conditions, states
from workflows.planning.identity import annotation_key, id_segment, response_segment, unique_id
from workflows.planning.plan import PlannedFollowUp, incomplete_follow_up, requested_follow_ups
from workflows.planning.reasons import MissingFile, Reason, ReasonCode
from workflows.planning.requests import names_used
from workflows.planning.view import Source, StepScope, View

WAIT, FIRE, HOLD, STOP = "wait", "fire", "hold", "stop"

LOST = ("failed", "skipped", "canceled", "error")  # states of a follow-up from which no result comes any more


class NewJoin(NamedTuple):
    """A join that a planned fan-out makes due: one row, by its key."""

    key: str  # the join's identity, of the form of a unique_id
    workflow: str
    step: str  # the step with `join`
    source_task_id: str  # the task that was fanned out
    part: str | None  # with `over: copies` the element whose copies are joined
    children: tuple[str, ...]  # unique_ids of the follow-ups that are waited for
    within: int | None  # seconds from now to the deadline


class Child(NamedTuple):
    """One follow-up of a fan-out, as it stands."""

    unique_id: str
    state: str  # of the follow-up
    view: View | None = None  # of its task, with `source`; None before there is one
    attempt: int = 1
    first_unique_id: str | None = None

    @property
    def first(self) -> str:
        """The unique_id of the first attempt."""
        return self.first_unique_id or self.unique_id


class Verdict(NamedTuple):
    do: str  # wait | fire | hold (as fire, and what follows is held) | stop (nothing will follow)
    why: str
    children: tuple[Child, ...]  # those whose results count, in the order of their unique_ids


@dataclass(frozen=True, slots=True)
class JoinOutcome:
    """What a join that fired comes to."""

    follow_ups: tuple[PlannedFollowUp, ...]
    reduced: dict[str, Any] | None  # what the reducer made of the results
    reason: str | None  # why there is no follow-up, when there is none
    is_incomplete: bool = (
        False  # a result file is missing: the join stays open, and is planned again with the file
    )


def joins_for(follow_ups: Sequence[PlannedFollowUp], workflow: Workflow, prefix: str = "") -> list[NewJoin]:
    """The joins over what `plan` gave for one result. An empty fan-out opens none.

    A later response of the same source may add children: a row that is still open takes those in.
    """
    found: dict[str, NewJoin] = {}
    for follow_up in follow_ups:
        source = Source(
            workflow.name, follow_up.step, follow_up.unique_id, follow_up.source_task_id,
            follow_up.source_annotation, follow_up.source_response,
        )  # fmt: skip
        for key, step in joins_of(source, workflow, prefix):
            assert step.join is not None
            opening = found.get(key) or NewJoin(
                key, workflow.name, step.name, source.task_id, _part(step.join, source), (), step.join.within
            )
            children = (*opening.children, follow_up.first_unique_id or follow_up.unique_id)
            found[key] = opening._replace(children=tuple(dict.fromkeys(children)))
    return list(found.values())


def joins_of(source: Source, workflow: Workflow, prefix: str = "") -> Iterator[tuple[str, Step]]:
    """The joins (key, step) that wait for the task of a follow-up: asked whenever that task changes."""
    made_by = workflow.step(source.step)
    if source.workflow != workflow.name or made_by is None:
        return
    for step in workflow.steps:
        if step.join is not None and step.after is not None and source.step in step.after.step:
            one = _part(step.join, source)
            parts = [id_segment(source.task_id), *([one] if one is not None else [])]
            if made_by.each_response:
                parts.append(response_segment(source.response))
            yield unique_id(prefix, workflow.name, step.name, *parts), step


def _part(join: Join, source: Source) -> str | None:
    return source.annotation if join.over == "copies" else None


def decide_join(workflow: Workflow, step: Step, children: Sequence[Child], overdue: bool = False) -> Verdict:
    """Whether a join waits, fires or gives up. `children`: every follow-up of it, retries among them."""
    join, after = step.join, step.after
    assert join is not None
    assert after is not None
    latest: dict[str, Child] = {}
    for child in sorted(children, key=lambda child: (child.first, child.attempt)):
        latest[child.first] = child
    there = tuple(child for child in latest.values() if child.view and states(child.view) & set(after.state))
    arrived = {child.unique_id for child in there}
    coming = [
        child
        for child in latest.values()
        if child.unique_id not in arrived and not _lost(child, workflow, after.step[0])
    ]
    needed = results_needed(join, len(latest))
    said = f"{len(there)} of {len(latest)} are {' or '.join(after.state)}"
    if there and len(there) >= needed:
        return Verdict(FIRE, said, there)
    if coming and not overdue:
        return Verdict(WAIT, f"{said}; waits for {needed}", there)
    why = f"{said} {'at the deadline' if overdue else 'and no more can come'}; wanted {needed}"
    if not there or join.on_deadline == "stop":
        return Verdict(STOP, why, there)
    return Verdict(HOLD if join.on_deadline == "hold" else FIRE, why, there)


def results_needed(join: Join, children: int) -> int:
    """How many results of so many children a join waits for."""
    return join.wait or math.ceil(round((join.quorum or 1) * children, 6))


def _lost(child: Child, workflow: Workflow, made_by: str) -> bool:
    """Whether no result can come from a child. One that will be tried again is not lost."""
    if child.state not in LOST:
        return False
    step = workflow.step(made_by)
    again = step is not None and child.attempt <= step.on_error.times
    return not (again and child.state == ERROR)


def plan_join(
    view: View, workflow: Workflow, step: Step, verdict: Verdict, key: str, prefix: str = ""
) -> JoinOutcome:
    """What follows from the results of a join that fires or holds. `view` is of the task that was fanned out, `key` the join's."""
    parts = tuple(key[len(prefix) :].split("."))
    try:
        return _plan_results(view, workflow, step, verdict, parts, prefix)
    except MissingFile as missing:
        held = incomplete_follow_up(view, workflow, step, prefix, parts, missing)
        return JoinOutcome((held,), None, str(missing), is_incomplete=True)


def _plan_results(
    view: View, workflow: Workflow, step: Step, verdict: Verdict, parts: tuple[str, ...], prefix: str
) -> JoinOutcome:
    assert step.join is not None
    uses_results = step.join.reduce is not None or step.python or names_used(step) & {"results", "reduced"}
    results = list(_results(view, verdict.children)) if uses_results else []
    reduced: dict[str, Any] | None = None
    if step.join.reduce is not None and (made := find_reducer(step.join.reduce.by)) is not None:
        reduced = made.reduce(results, {**made.options, **step.join.reduce.options})
    own = {"results": results, "reduced": reduced}
    names = StepScope(view, own)
    for condition in conditions(view, workflow, step, names):
        if not condition.held:
            return JoinOutcome((), reduced, f"{condition.name}: {condition.why}")
    held = None
    if verdict.do == HOLD:
        held = Reason(ReasonCode.JOIN, f"the join is incomplete: {verdict.why}")
    follow_ups = tuple(requested_follow_ups(view, workflow, step, prefix, parts, own, held))
    return JoinOutcome(follow_ups, reduced, None if follow_ups else "the step creates nothing")


def _results(view: View, children: Sequence[Child]) -> Iterator[dict[str, Any]]:
    """Each result as expressions and reducers see it: `annotations` are in coordinates of the source image."""
    annotations = {annotation_key(annotation): annotation for annotation in view.annotations}
    for child in children:
        if child.view is not None:
            source = child.view.source
            yield {
                "task_id": child.view.task_id,
                "unique_id": child.unique_id,
                "task": child.view.task,
                "response": child.view.response,
                "answer": child.view.answer,
                "annotations": child.view.uncropped,
                "element": source.annotation if source else None,
                "annotation": annotations.get(source.annotation or "") if source else None,
            }
