"""Notice on SQLite that another connection, also one of another process, has committed."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError


class CommitCounter:
    """A number that changes with each commit of another connection. For one thread."""

    def __init__(self, engine: Engine, *, enabled: bool) -> None:
        self._engine = engine
        self._enabled = enabled
        self._connection: Any = None

    def count(self) -> int | None:
        """Return the number; None where it is not known: the counter is disabled, or the database fails."""
        if not self._enabled:
            return None
        try:
            self._connection = self._connection or self._engine.raw_connection()
            found: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except (sqlite3.Error, SQLAlchemyError):
            self._connection = None
            return None
        return found
