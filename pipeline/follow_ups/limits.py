"""Limits of workflows: counters of created follow-ups that several workers share and that never exceed their limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, update

from models import SpendCounter
from pipeline.db.dialect import insert
from pipeline.db.ids import utcnow
from workflows.definition.model import Limit
from workflows.planning.reasons import Reason, ReasonCode

Key = tuple[str, str]
"""(counter, period)"""


def reserve(connection: Connection, limits: Sequence[Limit], requested: int) -> tuple[int, Reason | None]:
    """Count up to `requested` more under every limit. Return how many were granted, and what stopped the others.

    The counters' rows stay locked until the transaction ends, so that two workers never grant the same place.
    """
    if len(limits) == 1 and _reserve_all(connection, limits[0], requested):
        return requested, None
    granted, reason = requested, None
    by_key = {_key(limit): limit for limit in limits}
    for key in sorted(by_key):  # in one order, so that two transactions never wait for each other
        left = max(0, by_key[key].most - _lock(connection, key))
        if left < granted:
            granted, reason = left, limit_reason(by_key[key])
    if granted:
        for key in by_key:
            counter = update(SpendCounter).where(_is(key))
            connection.execute(counter.values(granted=SpendCounter.granted + granted))
    return granted, reason


def _reserve_all(connection: Connection, limit: Limit, requested: int) -> bool:
    """Count in one statement, if the counter exists and is far enough from its limit: the usual case."""
    fits = and_(_is(_key(limit)), SpendCounter.granted + requested <= limit.most)
    statement = update(SpendCounter).where(fits).values(granted=SpendCounter.granted + requested)
    return bool(connection.execute(statement).rowcount)


def remaining(connection: Connection, limit: Limit) -> int:
    """Return how many more the limit would grant now."""
    granted = connection.scalar(select(SpendCounter.granted).where(_is(_key(limit))))
    return limit.most - (granted or 0)


def limit_reason(limit: Limit) -> Reason:
    """Return the reason of a follow-up that the limit holds."""
    period = "a day" if limit.period == "day" else "in all"
    return Reason(ReasonCode.LIMIT, f"held by the limit of {limit.most:,} tasks {period} of {limit.counter}")


def _key(limit: Limit) -> Key:
    return limit.counter, f"{utcnow():%Y-%m-%d}" if limit.period == "day" else "total"


def _is(key: Key) -> ColumnElement[bool]:
    return and_(SpendCounter.counter == key[0], SpendCounter.period == key[1])


def _lock(connection: Connection, key: Key) -> int:
    """Lock the counter, which is inserted if it is new, and return how many it has granted."""
    row: Mapping[str, Any] = {"counter": key[0], "period": key[1], "granted": 0, "changed_at": utcnow()}
    statement = insert(connection, SpendCounter).values(row)
    statement = statement.on_conflict_do_update(
        index_elements=["counter", "period"], set_={"changed_at": utcnow()}
    )
    return int(connection.scalars(statement.returning(SpendCounter.granted)).one())
