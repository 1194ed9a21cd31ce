"""Rate limits: remote sides that asked to be called less often, or do not answer. Every worker respects the same rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, select

from models import RateLimit
from pipeline.db.dialect import insert
from pipeline.db.ids import utcnow
from pipeline.jobs.queue import RetryLater

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 15.0, 600.0

_LIMIT = select(RateLimit.until, RateLimit.reason).where(RateLimit.scope == bindparam("scope"))


def check_rate_limit(connection: Connection, scope: str) -> bool:
    """Raise RetryLater while `scope` is paused. Return whether it has a pause that is over and can be cleared."""
    limit = connection.execute(_LIMIT, {"scope": scope}).one_or_none()
    return limit is not None and wait_until(limit.until, limit.reason)


def wait_until(until: datetime | None, reason: str) -> bool:
    """Raise RetryLater before `until`. Return whether there was a pause, which is over and can be cleared."""
    if until is None:
        return False
    if (left := (until - utcnow()).total_seconds()) > 0:
        raise RetryLater(reason, left * random.uniform(1.0, 1.2))
    return True


def set_rate_limit(connection: Connection, scope: str, reason: str, seconds: float) -> None:
    """Pause `scope` for `seconds` from now."""
    moment = utcnow()
    row: dict[str, Any] = {
        "scope": scope,
        "until": moment + timedelta(seconds=seconds),
        "seconds": int(seconds),
        "reason": reason,
        "changed_at": moment,
    }
    statement = insert(connection, RateLimit).values(row)
    changed = {name: value for name, value in row.items() if name != "scope"}
    connection.execute(statement.on_conflict_do_update(index_elements=["scope"], set_=changed))


def back_off(connection: Connection, scope: str, reason: str) -> None:
    """Pause a remote side that does not answer for FIRST_PAUSE_SECONDS, then each time for twice as long."""
    known = connection.scalar(select(RateLimit.seconds).where(RateLimit.scope == scope))
    seconds = FIRST_PAUSE_SECONDS if known is None else min(2 * known, MAX_PAUSE_SECONDS)
    set_rate_limit(connection, scope, reason, seconds)


def clear_rate_limit(connection: Connection, scope: str) -> None:
    """Forget the pauses of `scope`, because it has answered."""
    connection.execute(delete(RateLimit).where(RateLimit.scope == scope))


def active_rate_limits(connection: Connection, scopes: Sequence[str]) -> list[RowMapping]:
    """Return {scope, reason, until} of those of `scopes` that are paused now."""
    statement = select(RateLimit.scope, RateLimit.reason, RateLimit.until).where(
        RateLimit.scope.in_(scopes), RateLimit.until > utcnow()
    )
    return list(connection.execute(statement.order_by(RateLimit.scope)).mappings())
