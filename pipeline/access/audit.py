"""The audit log: what a person decided through the API or the commands, written in the transaction that does it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from models import AuditEntry
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, utcnow


def log_action(
    connection: Connection, actor: str, action: str, subject: str, details: dict[str, Any] | None = None
) -> None:
    """Record that `actor` did `action` to `subject`. Actions have names such as `follow-up.approve` and `delivery.replay`."""
    connection.execute(
        insert(connection, AuditEntry).values(
            id=new_id(), at=utcnow(), actor=actor, action=action, subject=subject, details=details
        )
    )
