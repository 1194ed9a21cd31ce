"""Heartbeats of workers."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select

from models import KeyValue
from pipeline.db.dialect import from_now

HEARTBEAT = "heartbeat:"
HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 60
FORGOTTEN_SECONDS = 86_400.0


def last_heartbeat(connection: Connection) -> tuple[datetime | None, datetime]:
    """Return the time of the newest heartbeat, None if there was none, and the database's present time."""
    beats = select(func.max(KeyValue.changed_at), from_now()).where(KeyValue.key.startswith(HEARTBEAT))
    beat, now = connection.execute(beats).one()
    return beat, now


def forget_the_silent(connection: Connection) -> None:
    """Delete the heartbeats of workers that have not reported for a day: each has a name of its own."""
    silent = KeyValue.changed_at < from_now(-FORGOTTEN_SECONDS)
    connection.execute(delete(KeyValue).where(KeyValue.key.startswith(HEARTBEAT), silent))
