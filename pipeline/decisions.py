"""What people decide: whether a follow-up may cost money, whether a workflow goes on, whether anything is created at all.

Each is written to the audit log in the same transaction. What returns job ids wants them rung for after the commit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, select, update

from models import FollowUp, State
from pipeline import jobs
from pipeline.audit import note
from pipeline.database import insert, now
from pipeline.follow_ups import STOPPED
from pipeline.state import forget, recall, remember

PAUSED = "paused:"
MISSED = "missed:"
ROWS_AT_ONCE = 500


class OutOfPlace(Exception):
    """The decision does not fit the state that things are in; args[0] says why, and what would."""


# Follow-ups. Each raises LookupError for a unique_id that is not known, and OutOfPlace.


def approve(connection: Connection, unique_id: str, who: str) -> list[UUID]:
    """A held follow-up may be created, whatever it was held for: limits, age, `hold`."""
    _decide(connection, unique_id, who, "approve", ("held",), state="planned", reason=None)
    return jobs.ask(connection, jobs.CREATE, [unique_id])


def cancel(connection: Connection, unique_id: str, who: str) -> list[UUID]:
    """A follow-up that is held or planned is never created; one that was created is canceled at Scale by a job."""
    state = _decide(connection, unique_id, who, "cancel", ("held", "planned", "created"))
    if state == "created":
        return jobs.ask(connection, jobs.CANCEL, [unique_id])
    connection.execute(
        update(FollowUp)
        .where(FollowUp.unique_id == unique_id)
        .values(state="canceled", reason=f"canceled by {who}")
    )
    return []


def retry(connection: Connection, unique_id: str, who: str) -> list[UUID]:
    """A follow-up that Scale refused, or that its workers gave up, is tried again with the same unique_id."""
    _decide(connection, unique_id, who, "retry", ("failed", "planned"), state="planned", reason=None)
    return jobs.ask(connection, jobs.CREATE, [unique_id])


def _decide(
    connection: Connection, unique_id: str, who: str, action: str, fitting: tuple[str, ...], **values: Any
) -> str:
    """Lock the row and write the decision; the state that it was made in."""
    state = connection.scalar(select(FollowUp.state).where(FollowUp.unique_id == unique_id).with_for_update())
    if state is None:
        raise LookupError(f"there is no follow-up {unique_id}")
    if state not in fitting:
        raise OutOfPlace(f"the follow-up is {state}; {action} takes one that is {' or '.join(fitting)}")
    connection.execute(
        update(FollowUp)
        .where(FollowUp.unique_id == unique_id)
        .values(decided_by=who, decided_at=now(), **values)
    )
    note(connection, who, f"follow-up.{action}", unique_id, {"state": state})
    return state


# Workflows. A paused one plans nothing; the tasks that it would have looked at wait with their ids.


def pause(connection: Connection, workflow: str, who: str) -> None:
    """Plan nothing for this workflow until it is resumed. What is planned already goes on."""
    if recall(connection, PAUSED + workflow) is None:
        remember(connection, PAUSED + workflow, {"who": who, "at": now().isoformat()})
        note(connection, who, "workflow.pause", workflow)


def resume(connection: Connection, workflow: str, who: str) -> list[UUID]:
    """Plan again, and first of all for the tasks that changed during the pause."""
    forget(connection, PAUSED + workflow)
    prefix = f"{MISSED}{workflow}:"
    missed = connection.scalars(
        delete(State).where(State.key.startswith(prefix, autoescape=True)).returning(State.key)
    ).all()
    note(connection, who, "workflow.resume", workflow, {"tasks": len(missed)})
    return jobs.ask(connection, jobs.PLAN, [key.removeprefix(prefix) for key in missed])


def paused(connection: Connection) -> dict[str, dict[str, Any]]:
    """Name of each paused workflow → {who, at}."""
    rows = connection.execute(select(State.key, State.value).where(State.key.startswith(PAUSED)))
    return {key.removeprefix(PAUSED): value for key, value in rows}


def miss(connection: Connection, workflows: Iterable[str], task_id: str) -> None:
    """These workflows would have looked at the task, had they not been paused."""
    keys = [f"{MISSED}{workflow}:{task_id}" for workflow in workflows]
    for key in sorted(keys):
        statement = insert(connection, State).values(key=key, value={}, changed_at=now())
        connection.execute(statement.on_conflict_do_nothing(index_elements=["key"]))


# Creating: the one switch.


def stop_creating(connection: Connection, who: str) -> None:
    """Keep receiving and planning, create nothing."""
    if recall(connection, STOPPED) is None:
        remember(connection, STOPPED, {"who": who, "at": now().isoformat()})
        note(connection, who, "creating.stop", "creating")


def start_creating(connection: Connection, who: str) -> None:
    """Create again. The jobs that waited look once a minute."""
    if recall(connection, STOPPED) is not None:
        forget(connection, STOPPED)
        note(connection, who, "creating.start", "creating")
