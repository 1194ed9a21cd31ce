"""Small facts that the processes share, by key."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, select

from models import KeyValue
from pipeline.db.dialect import from_now, insert


def set_state(connection: Connection, key: str, value: dict[str, Any]) -> None:
    """Store the value with the time of the database's clock."""
    statement = insert(connection, KeyValue).values(key=key, value=value, changed_at=from_now())
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["key"], set_={"value": new.value, "changed_at": new.changed_at}
        )
    )


def get_state(connection: Connection, key: str) -> dict[str, Any] | None:
    """Return the fact, None when there is none."""
    return connection.scalar(select(KeyValue.value).where(KeyValue.key == key))


def delete_state(connection: Connection, key: str) -> None:
    """Delete the fact `key`, if it exists."""
    connection.execute(delete(KeyValue).where(KeyValue.key == key))
