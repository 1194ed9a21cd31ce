"""The state machine of a follow-up. Every change of a state after its insertion goes through `transition`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from more_itertools import chunked
from sqlalchemy import Connection, and_, case, null, update

from models import FollowUp
from workflows.planning.reasons import Reason

BATCH_SIZE = 500

PLANNED, HELD, SKIPPED, FAILED = "planned", "held", "skipped", "failed"
CREATED, COMPLETED, ERROR, CANCELED = "created", "completed", "error", "canceled"

WITHOUT_TASK = (PLANNED, HELD, SKIPPED, FAILED, CANCELED)
"""States that a follow-up can have before a task exists for it."""
WITH_TASK = (CREATED, COMPLETED, ERROR, CANCELED)
"""States of its task at Scale, which may go from any to any other: a recall reopens a completed task."""

PREVIOUS_STATES: Mapping[str, frozenset[str]] = {
    PLANNED: frozenset((HELD, SKIPPED, FAILED, CANCELED, PLANNED)),
    HELD: frozenset((PLANNED, HELD, SKIPPED, FAILED, CANCELED)),
    SKIPPED: frozenset((PLANNED, HELD, SKIPPED, FAILED, CANCELED)),
    FAILED: frozenset((PLANNED,)),
    CREATED: frozenset((*WITHOUT_TASK, *WITH_TASK)),
    COMPLETED: frozenset((*WITHOUT_TASK, *WITH_TASK)),
    ERROR: frozenset((*WITHOUT_TASK, *WITH_TASK)),
    CANCELED: frozenset((*WITHOUT_TASK, *WITH_TASK)),
}
"""state → the states that it may follow."""


def transition(
    connection: Connection,
    unique_ids: Iterable[str],
    to: str,
    reason: Reason | str | None = None,
    *,
    previous: Collection[str] = (),
    where: Collection[Any] = (),
    **columns: Any,
) -> list[str]:
    """Move follow-ups to the state `to` and return the unique_ids of those that moved.

    A `reason` with a code is the cause of the state; a text is a note about the request. Follow-ups in any other state than `previous`, by default those of PREVIOUS_STATES, or that do not match `where`, stay
    as they are. Without a `reason` the former cause is removed, and notes of a request that was created are kept.
    """
    allowed = PREVIOUS_STATES[to] & frozenset(previous) if previous else PREVIOUS_STATES[to]
    values = {"state": to, **(_no_cause() if reason is None else _cause(reason)), **columns}
    moved: list[str] = []
    for batch in chunked(unique_ids, BATCH_SIZE):
        statement = update(FollowUp).where(
            FollowUp.unique_id.in_(batch), FollowUp.state.in_(sorted(allowed)), *where
        )
        moved += connection.scalars(statement.values(**values).returning(FollowUp.unique_id))
    return moved


def _cause(reason: Reason | str) -> dict[str, Any]:
    code, text = (None, reason) if isinstance(reason, str) else reason
    return {"reason_code": code, "reason": text}


def _no_cause() -> dict[str, Any]:
    """Return the columns that clear a reason with a code, which explains a missing task; a note about the request stays."""
    explains = and_(FollowUp.reason_code.is_not(None), FollowUp.state.in_(WITHOUT_TASK))
    return {
        "reason_code": case((explains, null()), else_=FollowUp.reason_code),
        "reason": case((explains, null()), else_=FollowUp.reason),
    }
