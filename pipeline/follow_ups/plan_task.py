"""Plan a task whose state changed: the workflows decide, and what they want is stored with its jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from more_itertools import chunked, mark_ends
from sqlalchemy import Connection

from pipeline.events import outbox
from pipeline.events.subscriptions import Subscriptions
from pipeline.follow_ups import joins
from pipeline.follow_ups.activation import activations, applying_steps
from pipeline.follow_ups.fast_plan import Stored, store_usual_plan
from pipeline.follow_ups.pauses import MissedBy, invalid_files, paused_workflows, record_missed
from pipeline.follow_ups.recording import (
    cancel_for_recall,
    close_incomplete,
    enqueue_within_limits,
    insert_follow_ups,
)
from pipeline.follow_ups.views import ContentPurged, TaskSnapshot, load_snapshot, snapshot_key
from pipeline.jobs import queue
from pipeline.jobs.queue import Job
from pipeline.service import Service
from workflows.definition.model import Workflow, Workflows, has_workflow_for
from workflows.planning.conditions import steps_to_cancel
from workflows.planning.joins import joins_for
from workflows.planning.plan import PlannedFollowUp, plan

log = logging.getLogger(__name__)

FOLLOW_UP_BATCH_SIZE = 1_000
"""Follow-ups of one transaction, which locks the task's row."""


class Planned(NamedTuple):
    """What one workflow wants of a task."""

    workflow: Workflow
    follow_ups: list[PlannedFollowUp]
    recalled_steps: list[str]  # steps whose follow-ups are not wanted any more


@dataclass(slots=True)
class TaskPlan:
    """What all workflows want of a task."""

    snapshot: TaskSnapshot
    planned: list[Planned] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    missed: set[MissedBy] = field(
        default_factory=set
    )  # paused workflows that would have planned it, and invalid files

    @property
    def follow_ups(self) -> list[PlannedFollowUp]:
        """Return the follow-ups of all workflows."""
        return [follow_up for one in self.planned for follow_up in one.follow_ups]


class Finalized(NamedTuple):
    """What the end of a plan changed."""

    joins: list[joins.Opened]
    canceled: list[str]  # unique_ids


def plan_task(service: Service, job: Job) -> int | Job:
    """Store what follows from a task as it is now. Returns how many follow-ups are new, or the creation of the only one, leased.

    Planning again is free, because unique_ids are inserted once. If the task changes meanwhile, its job was enqueued
    again, and the rest is left to that run.
    """
    plan = make_plan(service, job.subject)
    if plan is None:
        with service.engine.begin() as connection:
            queue.finish(connection, job)
        return 0

    def finish(connection: Connection, _: int | None) -> None:
        if not plan.failures:
            queue.finish(connection, job)

    stored = store_usual_plan(service, job, plan)
    if stored is None:
        with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as check_lease:
            stored = Stored(store_plan(service, plan, check_lease, finish), None)
    created, next_job = stored
    if created:
        fields = {**job.log_fields, "delivery_id": str(plan.snapshot.delivery_id), "follow_ups": created}
        log.info("follow-ups planned", extra=fields)
    if plan.failures:
        raise plan.failures[0]
    return next_job or created


def store_plan(
    service: Service,
    plan: TaskPlan,
    check_lease: Callable[[], None],
    finish: Callable[[Connection, int | None], None],
) -> int:
    """Store a plan in bounded transactions. Returns how many follow-ups are new.

    `finish` is called in the last transaction with their number, or with None if the task has changed meanwhile and the
    rest is not stored.
    """
    created = 0
    subscriptions = service.subscriptions
    batches = list(chunked(plan.follow_ups, FOLLOW_UP_BATCH_SIZE)) or [[]]
    for _, is_last, batch in mark_ends(batches):
        check_lease()
        with service.engine.begin() as connection:
            if plan.snapshot.key != snapshot_key(connection, plan.snapshot.view.task_id):
                finish(connection, None)
                break
            created += store_batch(connection, service, subscriptions, plan, batch, is_last)
            if is_last:
                finish(connection, created)
    return created


def plan_past_result(service: Service, task_id: str, workflow: Workflow) -> TaskPlan | None:
    """Ask one workflow about a result, whenever it came and however; None while a file of it is pending, or if it was purged.

    What it plans is not held for the age or the origin of the result: a person asked for it.
    """
    try:
        with service.reader.begin() as connection:
            snapshot = load_snapshot(connection, task_id, parents=service.workflows.needs_parents)
    except ContentPurged:
        return None
    if snapshot is None:
        return None
    snapshot = replace(snapshot, view=replace(snapshot.view, held=None))
    steps = [step.name for step in workflow.steps]
    return TaskPlan(snapshot, [_plan_workflow(service, snapshot, workflow, steps)])


def make_plan(service: Service, task_id: str) -> TaskPlan | None:
    """Ask every workflow that was loaded before the task changed last.

    None while a file of the task's response is pending, and if it or a parent was purged.
    """
    workflows, active_from = service.workflows, activations(service)
    try:
        snapshot = load_snapshot(service.reader, task_id, parents=workflows.needs_parents)
    except ContentPurged as purged:
        log.warning("nothing is planned", extra={"task_id": task_id, "reason": str(purged)})
        return None
    if snapshot is None:
        return None
    paused = paused_workflows(service.reader, service) if snapshot.workflow_is_paused else set()
    applying = {
        workflow.name: applying_steps(service.reader, active_from, workflow, task_id, snapshot.received_at)
        for workflow in workflows.loaded
    }
    plan = TaskPlan(snapshot, missed=invalid_files(workflows))
    for workflow in workflows.loaded:
        if not (steps := applying[workflow.name]):
            continue
        if workflow.name not in paused:
            try:
                plan.planned.append(_plan_workflow(service, snapshot, workflow, steps))
            except Exception as failure:  # one workflow must not stop the others
                plan.failures.append(failure)
        elif _would_plan(snapshot, workflow):
            plan.missed.add(MissedBy("workflow", workflow.name))
    return plan


def _plan_workflow(
    service: Service, snapshot: TaskSnapshot, workflow: Workflow, steps: Collection[str]
) -> Planned:
    follow_ups = plan(snapshot.view, workflow, service.settings.unique_id_prefix)
    chosen = [follow_up for follow_up in follow_ups if follow_up.step in steps]
    return Planned(workflow, chosen, steps_to_cancel(snapshot.view, workflow))


def _would_plan(snapshot: TaskSnapshot, workflow: Workflow) -> bool:
    """Return whether a paused workflow would have planned this task."""
    source = snapshot.view.source
    return has_workflow_for(Workflows((workflow,)), snapshot.view.type) or bool(
        source and source.workflow == workflow.name
    )


def store_batch(
    connection: Connection, service: Service, subscriptions: Subscriptions, plan: TaskPlan, batch: Sequence[PlannedFollowUp], is_last: bool,
) -> int:  # fmt: skip
    """Store one batch, and with the last one what depends on the whole plan. Returns how many follow-ups are new.

    Rows are locked in one order everywhere: follow-ups, joins, counters of limits, jobs.
    """
    snapshot = plan.snapshot
    new = insert_follow_ups(connection, service, snapshot, batch)
    finalized = _finalize(connection, service, plan) if is_last else Finalized([], [])
    enqueue_within_limits(connection, service, snapshot.view.environment, new.to_create)
    outbox.publish_follow_ups(connection, subscriptions, [*new.unique_ids, *finalized.canceled])
    joins.enqueue_joins(connection, finalized.joins)
    if is_last:
        record_missed(connection, plan.missed, snapshot.view.task_id)
        _recheck_joins(connection, snapshot)
        root = snapshot.view.source.task_id if snapshot.view.source else snapshot.view.task_id
        outbox.enqueue_run_check(connection, subscriptions, root)
    return len(new.unique_ids)


def _finalize(connection: Connection, service: Service, plan: TaskPlan) -> Finalized:
    """Cancel what a recall or an arrived file made obsolete, and open the joins over what was stored."""
    snapshot, finalized = plan.snapshot, Finalized([], [])
    task_id = snapshot.view.task_id
    for workflow, follow_ups, recalled_steps in plan.planned:
        if recalled_steps:
            finalized.canceled.extend(cancel_for_recall(connection, task_id, workflow.name, recalled_steps))
            joins.close_joins(connection, task_id, workflow.name, recalled_steps)
        own_steps = [step.name for step in workflow.steps if step.join is None]
        obsolete = close_incomplete(connection, task_id, workflow.name, own_steps, follow_ups)
        finalized.canceled.extend(obsolete)
        due = joins_for(follow_ups, workflow, service.settings.unique_id_prefix)
        own = [join for join in due if join.source_task_id == task_id]  # a retry's join is open already
        finalized.joins.append(joins.open_joins(connection, workflow, own, snapshot.response_id))
    return finalized


def _recheck_joins(connection: Connection, snapshot: TaskSnapshot) -> None:
    """Enqueue the joins that wait for this task."""
    if (source := snapshot.view.source) is not None:
        key = {
            "workflow": source.workflow,
            "step": source.step,
            "source_task_id": source.task_id,
            "source_annotation": source.annotation,
        }
        joins.recheck_joins(connection, key)
