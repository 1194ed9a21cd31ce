"""Heartbeats of workers, by the database's clock."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select

from models import WorkerHeartbeat
from pipeline.db.dialect import from_now, insert

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60
STALE_SECONDS = 86_400.0


def record_heartbeat(connection: Connection, worker: str, pid: int) -> None:
    """Store that a worker is alive now."""
    statement = insert(connection, WorkerHeartbeat).values(worker=worker, pid=pid, last_seen_at=from_now())
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["worker"], set_={"pid": new.pid, "last_seen_at": new.last_seen_at}
        )
    )


def last_heartbeat(connection: Connection) -> tuple[datetime | None, datetime]:
    """Return the time of the newest heartbeat, None if there was none, and the database's present time."""
    seen, now = connection.execute(select(func.max(WorkerHeartbeat.last_seen_at), from_now())).one()
    return seen, now


def delete_stale_heartbeats(connection: Connection) -> None:
    """Delete the heartbeats of workers that have not reported for a day: each process has a name of its own."""
    connection.execute(delete(WorkerHeartbeat).where(WorkerHeartbeat.last_seen_at < from_now(-STALE_SECONDS)))
