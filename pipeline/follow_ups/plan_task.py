"""A task whose level changed is looked at: the workflows decide, and what they want is recorded with its jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection

from pipeline.events import outbox
from pipeline.follow_ups import joins
from pipeline.follow_ups.pauses import broken_files, paused_workflows, record_missed
from pipeline.follow_ups.recording import cancel_for_recall, enqueue_within_limits, insert_follow_ups
from pipeline.follow_ups.views import TaskSnapshot, load_snapshot, snapshot_key
from pipeline.jobs import queue
from pipeline.jobs.queue import Job
from pipeline.service import Service
from workflows.definition.model import Workflow, Workflows, has_workflow_for
from workflows.planning.conditions import steps_to_cancel
from workflows.planning.joins import joins_for
from workflows.planning.plan import PlannedFollowUp, plan

FOLLOW_UP_BATCH_SIZE = 1_000
"""In one transaction: the task's row is locked for as long."""


class Planned(NamedTuple):
    """What one workflow wants of a task."""

    workflow: Workflow
    follow_ups: list[PlannedFollowUp]
    taken_back: list[str]  # steps whose follow-ups are not wanted any more


class Finalized(NamedTuple):
    """What came of the end of a plan."""

    opened: list[joins.Opened]
    taken_back: list[str]  # unique_ids


def plan_task(service: Service, job: Job) -> int:
    """Plan what follows from a task as it stands now; how many follow-ups are new. The unique_ids make looking again free.

    A change meanwhile has asked for the job again: what was planned before it is left to that.
    """
    workflows = service.workflows
    with service.reader.begin() as connection:
        seen = load_snapshot(connection, job.subject, parents=workflows.needs_parents)
        paused = paused_workflows(connection, service)
    if seen is None:
        with service.engine.begin() as connection:
            queue.finish(connection, job)
        return 0
    planned, failures, created = [], [], 0
    missing = {
        workflow.name
        for workflow in workflows.loaded
        if workflow.name in paused and _could_want(seen, workflow)
    }
    with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as still_leased:
        for workflow in workflows.loaded:
            if workflow.name not in paused:
                try:
                    planned.append(_plan(service, seen, workflow))
                except Exception as failure:  # one workflow must not keep the others from what they want
                    failures.append(failure)
        for last, some in _in_pieces([follow_up for one in planned for follow_up in one.follow_ups]):
            still_leased()
            with service.engine.begin() as connection:
                if seen.key != snapshot_key(connection, job.subject):
                    queue.finish(connection, job)
                    break
                new = insert_follow_ups(connection, service, seen, some)
                created += len(new.unique_ids)
                ended = _finalize(connection, service, seen, planned) if last else Finalized([], [])
                enqueue_within_limits(connection, service, seen.view.environment, new.planned)
                outbox.publish_follow_ups(
                    connection, service.subscriptions, [*new.unique_ids, *ended.taken_back]
                )
                joins.enqueue_joins(connection, ended.opened)
                if last:
                    record_missed(connection, missing | broken_files(service), job.subject)
                    _recheck_joins(connection, seen)
                    above = seen.view.source.task_id if seen.view.source else job.subject
                    outbox.enqueue_run_check(connection, service.subscriptions, above)
                if last and not failures:
                    queue.finish(connection, job)
    if failures:
        raise failures[0]
    return created


def _could_want(seen: TaskSnapshot, workflow: Workflow) -> bool:
    """Whether a workflow that is paused would have looked at this task."""
    source = seen.view.source
    return has_workflow_for(Workflows((workflow,)), seen.view.type) or bool(
        source and source.workflow == workflow.name
    )


def _plan(service: Service, seen: TaskSnapshot, workflow: Workflow) -> Planned:
    follow_ups = plan(seen.view, workflow, service.settings.unique_id_prefix)
    return Planned(workflow, follow_ups, steps_to_cancel(seen.view, workflow))


def _in_pieces(follow_ups: Sequence[PlannedFollowUp]) -> Iterator[tuple[bool, list[PlannedFollowUp]]]:
    """(whether it is the last, follow-ups of one transaction); one piece at the least."""
    waiting = iter(follow_ups)
    some = list(islice(waiting, FOLLOW_UP_BATCH_SIZE))
    while True:
        more = list(islice(waiting, FOLLOW_UP_BATCH_SIZE))
        yield not more, some
        if not more:
            return
        some = more


def _finalize(
    connection: Connection, service: Service, seen: TaskSnapshot, planned: Sequence[Planned]
) -> Finalized:
    """Everything is recorded: what a recall takes back is taken back, and the joins can count."""
    task_id, ended = seen.view.task_id, Finalized([], [])
    for workflow, follow_ups, taken_back in planned:
        if taken_back:
            ended.taken_back.extend(cancel_for_recall(connection, task_id, workflow.name, taken_back))
            joins.close(connection, task_id, workflow.name, taken_back)
        found = joins_for(follow_ups, workflow, service.settings.unique_id_prefix)
        own = [
            opening for opening in found if opening.source_task_id == task_id
        ]  # that of a retry is open already
        ended.opened.append(joins.open_joins(connection, workflow, own, seen.response_id))
    return ended


def _recheck_joins(connection: Connection, seen: TaskSnapshot) -> None:
    """Whoever waits for this task looks again."""
    if (source := seen.view.source) is not None:
        place = {
            "workflow": source.workflow,
            "step": source.step,
            "source_task_id": source.task_id,
            "source_annotation": source.annotation,
        }
        joins.recheck_joins(connection, place)
