"""Read whether tasks are created at Scale now."""

from __future__ import annotations

from sqlalchemy import Connection

from pipeline.db.state import get_state
from pipeline.follow_ups.pauses import STOPPED, active_throttles
from pipeline.operations.queries.paging import Record


def creation_status(connection: Connection) -> Record:
    """Return {stopped, stopped_by, stopped_at, pauses}; `pauses` are the rate limits of Scale that last."""
    stopped = get_state(connection, STOPPED)
    return {
        "stopped": stopped is not None,
        "stopped_by": (stopped or {}).get("actor"),
        "stopped_at": (stopped or {}).get("at"),
        "pauses": active_throttles(connection),
    }
