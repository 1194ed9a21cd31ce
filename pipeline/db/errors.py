"""Classify database errors: a fault of the connection, a transient one, or one of the data; and what may be shown of them."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

log = logging.getLogger(__name__)

DATA_SQLSTATE_CLASSES = ("22", "23", "54")
"""Data exceptions, integrity violations, exceeded program limits: what the row itself is refused for."""
DISCONNECT_SQLSTATES = frozenset(
    (
        "25006",  # read-only transaction: the server was demoted
        "25P03",  # idle-in-transaction time-out
        "25P04",  # transaction time-out
        "26000",  # unknown prepared statement: another server behind a pooler
        "42P05",  # duplicate prepared statement: the same
        "57P01",  # admin shutdown
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now
        "57P04",  # database dropped
        "57P05",  # idle session time-out
    )
)
DISCONNECT_SQLSTATE_CLASSES = ("08",)
"""States after which this connection, or its server, cannot do the work. Source: PostgreSQL, "Error Codes"."""

MISSING_IN_SQLITE = re.compile(r"no such (table|column)|has no column")
"""SQLite has one code for these and for what it refuses of the data."""


def rolled_back(connection: Connection) -> bool:
    """Return whether the database has rolled back the whole transaction, as SQLite does when its disk is full.

    What is written afterwards would be committed by itself.
    """
    driver: Any = connection.connection
    return connection.dialect.name == "sqlite" and not driver.in_transaction


def is_disconnect(error: BaseException) -> bool:
    """Return whether the driver's `error` means that the connection must be replaced."""
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:
        return False
    # A statement that was prepared before a migration changed its columns fails as long as the connection is open.
    is_outdated = state == "0A000" and "cached plan" in str(error)
    return is_outdated or state in DISCONNECT_SQLSTATES or state[:2] in DISCONNECT_SQLSTATE_CLASSES


def is_transient(error: DBAPIError) -> bool:
    """Return whether the same statement may succeed later: a lock, a time-out, a connection that fails, a missing migration.

    Only what the data is refused for is permanent: a fault of the database must never be stored as one of the body.
    """
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] not in DATA_SQLSTATE_CLASSES
    if isinstance(error, InterfaceError):
        return True
    sqlite_code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return isinstance(error, OperationalError) and (
        sqlite_code != sqlite3.SQLITE_ERROR or MISSING_IN_SQLITE.search(str(error.orig)) is not None
    )


def safe_message(error: BaseException) -> str:
    """Return the type and the first line of the error; other lines may contain row values, such as signed URLs."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"


def log_fallback(fault: Exception, fields: Mapping[str, object]) -> None:
    """Log that a fast path failed, for what `fields` name: the general path knows what to do then."""
    log.info("fast path failed, using the general path", extra={**fields, "error": safe_message(fault)})
