"""How many follow-ups a workflow may ask for: counters that several workers pass one after another, never beyond a limit."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from models import KeyValue
from pipeline.db.dialect import insert
from pipeline.db.ids import utcnow
from workflows.definition.model import Limit


def reserve(connection: Connection, limits: Sequence[Limit], wished: int) -> tuple[int, str | None]:
    """Count up to `wished` more under every limit, never beyond any of them; how many, and what stopped the others.

    The counters' rows stay locked until the transaction ends, so that two workers never grant the same place.
    """
    if len(limits) == 1 and _all_of(connection, limits[0], wished):
        return wished, None
    granted, reason = wished, None
    keys = {_key(limit): limit for limit in limits}
    for key in sorted(keys):  # one order for everyone
        left = max(0, keys[key].most - _lock(connection, key))
        if left < granted:
            granted, reason = left, limit_reason(keys[key])
    if granted:
        counters = update(KeyValue).where(KeyValue.key.in_(keys))
        connection.execute(counters.values(count=KeyValue.count + granted))
    return granted, reason


def _all_of(connection: Connection, limit: Limit, wished: int) -> bool:
    """The usual case in one statement: the counter is there, and far from its limit."""
    far = (KeyValue.key == _key(limit), KeyValue.count + wished <= limit.most)
    return bool(
        connection.execute(update(KeyValue).where(*far).values(count=KeyValue.count + wished)).rowcount
    )


def remaining(connection: Connection, limit: Limit) -> int:
    """How many more a limit would grant now."""
    return limit.most - (connection.scalar(select(KeyValue.count).where(KeyValue.key == _key(limit))) or 0)


def _key(limit: Limit) -> str:
    return f"granted:{limit.counter}" + (f":{utcnow():%Y-%m-%d}" if limit.period == "day" else "")


def _lock(connection: Connection, key: str) -> int:
    """What was granted so far."""
    statement = insert(connection, KeyValue).values(key=key, value={}, changed_at=utcnow())
    statement = statement.on_conflict_do_update(index_elements=["key"], set_={"changed_at": utcnow()})
    return int(connection.scalars(statement.returning(KeyValue.count)).one())


def limit_reason(limit: Limit) -> str:
    return f"held by the limit of {limit.most:,} tasks {'a day' if limit.period == 'day' else 'in all'} of {limit.counter}"
