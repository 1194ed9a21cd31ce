"""Try whether the database can be written to."""

from __future__ import annotations

from sqlalchemy import Engine, insert
from sqlalchemy.exc import SQLAlchemyError

from models import WorkerHeartbeat
from pipeline.db.dialect import from_now
from pipeline.db.errors import safe_message


def write_fault(engine: Engine) -> str | None:
    """Insert a row and roll it back. Return why that is impossible, or None.

    A server that was demoted answers every read; only a write shows that no callback can be stored.
    """
    row = {"worker": "write probe", "pid": 0, "last_seen_at": from_now()}
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            connection.execute(insert(WorkerHeartbeat).values(**row))
            transaction.rollback()
    except SQLAlchemyError as fault:
        return safe_message(fault)
    return None
