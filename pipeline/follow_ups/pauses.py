"""What waits, and why: workflows that a person paused or whose files are broken, and the creating of tasks at Scale."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy import Connection, delete, select

from models import KeyValue
from pipeline.db.dialect import insert
from pipeline.db.ids import format_timestamp, utcnow
from pipeline.db.state import get_state, set_state
from pipeline.follow_ups.recording import missing_setting
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import RetryLater
from pipeline.service import Service

PAUSED = "paused:"
MISSED = "missed:"
FILE = "file "
CREATING = "creating"
STOPPED = "creating:stopped"
STOPPED_SECONDS = 60.0


# Workflows. The tasks that one would have looked at wait with their ids.


def paused(connection: Connection) -> dict[str, dict[str, Any]]:
    """Name of each paused workflow → {who, at}."""
    rows = connection.execute(select(KeyValue.key, KeyValue.value).where(KeyValue.key.startswith(PAUSED)))
    return {key.removeprefix(PAUSED): value for key, value in rows}


def paused_workflows(connection: Connection, service: Service) -> set[str]:
    """Names of the loaded workflows that are paused."""
    keys = [PAUSED + workflow.name for workflow in service.workflows.loaded]
    return {
        key.removeprefix(PAUSED)
        for key in connection.scalars(select(KeyValue.key).where(KeyValue.key.in_(keys)))
    }


def broken_files(service: Service) -> set[str]:
    """The files that are set aside, as `miss` knows them."""
    return {FILE + file.path for file in service.workflows.invalid}


def record_missed(connection: Connection, workflows: Iterable[str], task_id: str) -> None:
    """These workflows would have looked at the task, had they not been paused, or broken."""
    for workflow in sorted(workflows):
        missed = {"workflow": workflow, "task_id": task_id}
        row = {"key": f"{MISSED}{workflow}:{task_id}", "value": missed, "changed_at": utcnow()}
        statement = insert(connection, KeyValue).values(row)
        connection.execute(statement.on_conflict_do_nothing(index_elements=["key"]))


def replay_missed(connection: Connection, workflow: str) -> list[UUID]:
    """Ask again for every task that this workflow missed."""
    theirs = KeyValue.key.startswith(f"{MISSED}{workflow}:", autoescape=True)
    missed = connection.scalars(delete(KeyValue).where(theirs).returning(KeyValue.value)).all()
    return queue.enqueue(connection, kinds.PLAN, [one["task_id"] for one in missed])


def replay_missed_of_fixed_files(connection: Connection, service: Service) -> list[UUID]:
    """Ask again for every task that was missed by a file which is broken no more."""
    missed = connection.scalars(select(KeyValue.value).where(KeyValue.key.startswith(f"{MISSED}{FILE}")))
    mended = {one["workflow"] for one in missed} - broken_files(service)
    return [job_id for file in sorted(mended) for job_id in replay_missed(connection, file)]


# Creating: one switch for people, and one pause for each of Scale's environments.


def check_creation_allowed(connection: Connection, service: Service, environment: str) -> bool:
    """Raises Wait while no task may be created: stopped by a person, a setting is missing, or Scale asked to wait.

    Gives whether there is a pause that has ended, to be forgotten once Scale takes a task.
    """
    keys = (STOPPED, f"{CREATING}:{environment}")
    known = {
        row.key: row.value
        for row in connection.execute(select(KeyValue.key, KeyValue.value).where(KeyValue.key.in_(keys)))
    }
    if STOPPED in known:
        raise RetryLater("creating is stopped; `flask creating start` starts it", STOPPED_SECONDS)
    if why := missing_setting(service, environment):
        raise RetryLater(why, STOPPED_SECONDS)
    pause = known.get(f"{CREATING}:{environment}")
    if (
        pause is not None
        and (left := (datetime.fromisoformat(pause["until"]) - utcnow()).total_seconds()) > 0
    ):
        raise RetryLater(pause["reason"], left * random.uniform(1.0, 1.2))
    return pause is not None


def active_throttles(connection: Connection) -> list[dict[str, Any]]:
    """The pauses that Scale asked for and that last: {environment, reason, until}."""
    return [
        {"environment": environment, **pause}
        for environment in ("live", "test")
        if (pause := get_state(connection, f"{CREATING}:{environment}"))
        and datetime.fromisoformat(pause["until"]) > utcnow()
    ]


def throttle_creation(service: Service, environment: str, reason: str, seconds: float) -> NoReturn:
    """Every worker waits `seconds` before the next create call of this environment. Raises Wait."""
    until = format_timestamp(utcnow() + timedelta(seconds=seconds))
    with service.engine.begin() as connection:
        set_state(connection, f"{CREATING}:{environment}", {"reason": reason, "until": until})
    raise RetryLater(reason, seconds)
