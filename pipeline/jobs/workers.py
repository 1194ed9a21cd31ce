"""The worker processes that are alive, by their heartbeats."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from models import WorkerHeartbeat
from pipeline.db.dialect import from_now

ALIVE_SECONDS = 60.0
CACHE_SECONDS = 15.0


def count_workers(reader: Engine) -> int:
    """Return how many workers have reported within ALIVE_SECONDS, at least one: the caller."""
    alive = select(func.count()).where(WorkerHeartbeat.last_seen_at > from_now(-ALIVE_SECONDS))
    with reader.begin() as connection:
        return max(1, connection.scalar(alive) or 0)
