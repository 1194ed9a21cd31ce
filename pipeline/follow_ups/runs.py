"""A run: all tasks that follow from one first task, its state in counts, and whether it has finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from more_itertools import chunked
from sqlalchemy import Connection, func, select

from models import Artifact, FollowUp, Join, Task
from models import Job as JobRow
from pipeline.events.outbox import publish
from pipeline.events.subscriptions import WORKFLOW, About, has_filter
from pipeline.follow_ups.prices import cost_of_run
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job
from pipeline.service import Service
from workflows.definition.money import Prices

ID_BATCH_SIZE = 500
MAX_EVENT_JOINS = 100
"""Joins that workflow.finished names."""
ACTIVE = ("planned", "created")
UNSUCCESSFUL = ("error", "failed")


@dataclass(slots=True)
class RunTotals:
    """The follow-ups and joins of a run, counted."""

    task_ids: list[str]
    workflows: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)  # follow-ups by state
    retried: Counter[str] = field(default_factory=Counter)  # attempts that a retry replaced, by state
    verdicts: Counter[str | None] = field(default_factory=Counter)  # joins; None: waiting


def root_of(connection: Connection, task_id: str) -> str:
    """Return the first task that this one comes from: itself when no follow-up created it."""
    seen = {task_id}
    while True:
        above = connection.scalar(
            select(FollowUp.source_task_id)
            .join(Task, Task.follow_up_unique_id == FollowUp.unique_id)
            .where(Task.task_id == task_id)
        )
        if above is None or above in seen:
            return task_id
        seen.add(above)
        task_id = above


def run_of(connection: Connection, root: str, prices: Prices) -> dict[str, Any]:
    """Return {state, counts, tasks, workflows, started_at, finished_at, duration_seconds, cost} of all tasks from `root`.

    state: running while a task or a join is open; held while a person must decide; else failed if a task ended in an
    error, was refused, or a join gave up; else completed. The duration starts at the first task's creation.
    """
    return _summary(connection, walk(connection, root), prices)


def is_open(connection: Connection, root: str) -> bool:
    """Return whether something of the run may still be created, decided, joined or planned."""
    walked = walk(connection, root)
    waits = any(walked.counts[state] for state in (*ACTIVE, "held")) or bool(walked.verdicts[None])
    return waits or _will_plan(connection, walked.task_ids)


def finished_run(connection: Connection, root: str, prices: Prices) -> tuple[set[str], dict[str, Any]] | None:
    """Return (workflows, run) of a finished run; None while it is running, or if nothing followed."""
    walked = walk(connection, root)
    if not walked.workflows:
        return None
    run = _summary(connection, walked, prices)
    ended = run["state"] in ("completed", "failed") and not _will_plan(connection, walked.task_ids)
    return (walked.workflows, run) if ended else None


def publish_run_finished(service: Service, job: Job) -> None:
    """Run a job of kind `check_run`: publish workflow.finished once the run has ended, and again if it was continued."""
    subscriptions = service.subscriptions
    with service.reader.begin() as connection:
        root = root_of(connection, job.subject)
        finished = finished_run(connection, root, service.prices)
        joins = _joins(connection, root) if finished else []
        projects = _projects(connection, root) if has_filter(subscriptions, "project") else set()
    with service.engine.begin() as connection:
        if finished is not None:
            workflows, run = finished
            counts = ",".join(f"{state}={number}" for state, number in sorted(run["counts"].items()))
            data = {"task_id": root, "workflows": sorted(workflows), **run, "joins": joins}
            key = f"{root}:{counts}"
            about: About = {"workflow": workflows, "project": projects}
            publish(connection, subscriptions, f"{WORKFLOW}.finished", key, data, about=about)
        queue.finish(connection, job)


def _projects(connection: Connection, root: str) -> set[str | None]:
    """Return the projects of the tasks of a run."""
    found: set[str | None] = set()
    for some in chunked(walk(connection, root).task_ids, ID_BATCH_SIZE):
        found.update(connection.scalars(select(Task.project).where(Task.task_id.in_(some)).distinct()))
    return found


def _joins(connection: Connection, root: str) -> list[dict[str, Any]]:
    """Return the first MAX_EVENT_JOINS joins of a run, as its event shows them."""
    columns = (Join.id, Join.workflow, Join.step, Join.source_task_id, Join.source_annotation, Join.result)
    found: list[dict[str, Any]] = []
    for some in chunked(walk(connection, root).task_ids, ID_BATCH_SIZE):
        statement = select(*columns, Join.verdict.label("outcome"), Join.conclusion.label("verdict"))
        ordered = statement.where(Join.source_task_id.in_(some)).order_by(Join.id)
        rows = connection.execute(ordered.limit(MAX_EVENT_JOINS - len(found))).mappings()
        found += [dict(row) for row in rows]
        if len(found) >= MAX_EVENT_JOINS:
            break
    return found


def walk(connection: Connection, root: str) -> RunTotals:
    """Count level by level. Only ids and counts are kept in memory: a run may have a million tasks."""
    walked = RunTotals([root])
    seen, level = {root}, [root]
    while level:
        children: list[str] = []
        for some in chunked(level, ID_BATCH_SIZE):
            first = func.coalesce(FollowUp.first_unique_id, FollowUp.unique_id)
            of_sources = FollowUp.source_task_id.in_(some)
            retries = select(first, FollowUp.attempt - 1).where(of_sources, FollowUp.attempt > 1)
            replaced = {tuple(row) for row in connection.execute(retries)}
            columns = (
                FollowUp.state,
                FollowUp.workflow,
                FollowUp.attempt,
                FollowUp.task_id,
                first.label("first"),
            )
            for row in connection.execute(select(*columns).where(of_sources)):
                walked.workflows.add(row.workflow)
                walked.counts[row.state] += 1
                if replaced and (row.first, row.attempt) in replaced:
                    walked.retried[row.state] += 1
                if row.task_id is not None and row.task_id not in seen:
                    seen.add(row.task_id)
                    children.append(row.task_id)
            joins = (
                select(Join.verdict, func.count()).where(Join.source_task_id.in_(some)).group_by(Join.verdict)
            )
            walked.verdicts.update(dict(connection.execute(joins).all()))
        walked.task_ids += children
        level = children
    return walked


def _summary(connection: Connection, walked: RunTotals, prices: Prices) -> dict[str, Any]:
    columns = (Task.created_at, Task.clock, Task.response_id)
    first = connection.execute(select(*columns).where(Task.task_id == walked.task_ids[0])).one()
    counts, verdicts = walked.counts, walked.verdicts
    waits_for_first = first.response_id is None and not counts
    stuck = sum(counts[state] - walked.retried[state] for state in UNSUCCESSFUL)
    if waits_for_first or any(counts[state] for state in ACTIVE):
        state = "running"
    elif counts["held"]:
        state = "held"
    elif verdicts[None]:
        state = "running"
    else:
        state = "failed" if stuck > 0 or verdicts["stop"] else "completed"
    started_at: datetime | None = first.created_at or first.clock
    finished_at = None
    if state in ("completed", "failed"):
        last = (
            connection.scalar(select(func.max(Task.clock)).where(Task.task_id.in_(some)))
            for some in chunked(walked.task_ids, ID_BATCH_SIZE)
        )
        finished_at = max((clock for clock in last if clock), default=None)
    return {
        "state": state,
        "counts": dict(counts),
        "workflows": sorted(walked.workflows),
        "tasks": len(walked.task_ids),
        "started_at": started_at,
        "finished_at": finished_at,
        "duration_seconds": (finished_at - started_at).total_seconds()
        if finished_at and started_at
        else None,
        "cost": cost_of_run(connection, prices, walked.task_ids),
    }


def _will_plan(connection: Connection, task_ids: Sequence[str]) -> bool:
    """Return whether a task is still to be planned: its job waits, or a file of its result is pending."""
    for some in chunked(task_ids, ID_BATCH_SIZE):
        keys = [f"{kinds.PLAN}:{task_id}" for task_id in some]
        waiting = select(JobRow.id).where(JobRow.key.in_(keys), JobRow.state != "dead")
        unread = select(Artifact.id).join(Task, Task.response_id == Artifact.response_id)
        unread = unread.where(Task.task_id.in_(some), Artifact.state == "pending")
        if any(connection.scalar(one.limit(1)) is not None for one in (waiting, unread)):
            return True
    return False
