"""The audit log: what a person decided through the API or the commands, written in the transaction that does it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from models import AuditEntry
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, now


def note(
    connection: Connection, who: str, action: str, subject: str, details: dict[str, Any] | None = None
) -> None:
    """`who` did `action` to `subject`; an action reads `follow-up.approve`, `delivery.replay` …"""
    connection.execute(
        insert(connection, AuditEntry).values(
            id=new_id(), at=now(), who=who, action=action, subject=subject, details=details
        )
    )
