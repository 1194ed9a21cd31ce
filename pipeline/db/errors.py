"""Classify database errors: transient or permanent, and what may be shown of them."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

TRANSIENT_SQLSTATE_CLASSES = ("08", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE: connections, rollbacks, resources, locks, interventions, the system. Source: PostgreSQL, "Error Codes"."""


def rolled_back(connection: Connection) -> bool:
    """Whether the database has rolled back the whole transaction by itself, as SQLite does when its disk is full. What is
    written now would stand alone."""
    driver: Any = connection.connection
    return connection.dialect.name == "sqlite" and not driver.in_transaction


def is_transient(error: DBAPIError) -> bool:
    """Whether the same statement may succeed a little later: a lock, a time-out, a server that is full or stops."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] in TRANSIENT_SQLSTATE_CLASSES
    return (
        isinstance(error, OperationalError)
        and getattr(error.orig, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR
    )


def safe_message(error: BaseException) -> str:
    """What the database says, without the lines that repeat values: those may open files."""
    said = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(said).__name__}: {str(said).partition(chr(10))[0]}"
