"""Read whether tasks are created at Scale now."""

from __future__ import annotations

from sqlalchemy import Connection

from pipeline.db.ids import format_timestamp
from pipeline.follow_ups.pauses import active_throttles, creation_pauses
from pipeline.operations.queries.paging import Record


def creation_status(connection: Connection) -> Record:
    """Return {stopped, stopped_by, stopped_at, reason, environments, pauses}.

    `environments` are those in which creation is paused, `pauses` the rate limits of Scale that last.
    """
    paused = creation_pauses(connection)
    first = min(paused, key=lambda row: row["paused_at"], default=None)
    return {
        "stopped": bool(paused),
        "stopped_by": first and first["paused_by"],
        "stopped_at": first and format_timestamp(first["paused_at"]),
        "reason": first and first["reason"],
        "environments": [row["environment"] for row in paused],
        "pauses": active_throttles(connection),
    }
