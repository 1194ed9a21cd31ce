"""Statements that run for every follow-up: built with SQLAlchemy, compiled once, and executed by the driver where it can."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from pipeline.db import postgresql
from pipeline.db.engine import begin_autocommit

Record = dict[str, Any]
"""A row by the names of its columns."""


class _Compiled(NamedTuple):
    text: str
    columns: tuple[str, ...]


def fetch_one(
    database: Connection | Engine, statement: Any, parameters: Mapping[str, Any], *, binary: bool = False
) -> Record | None:
    """Execute a statement that returns at most one row, and return that row. Given an engine, it commits by itself.

    `statement` is kept for good: it must be built once. No parameter is JSON, and none of them expands to several. `binary` is that
    of postgresql.fetch().
    """
    if database.dialect.name != "postgresql":
        with connected(database) as connection:
            found = connection.execute(statement, parameters).mappings().one_or_none()
        return None if found is None else dict(found)
    compiled = _compile(statement)
    rows = postgresql.fetch(database, compiled.text, parameters, binary=binary)
    if not rows:
        return None
    (row,) = rows
    return dict(zip(compiled.columns, row, strict=True))


def connected(database: Connection | Engine) -> AbstractContextManager[Connection]:
    """Return a context of a connection for statements that only read: the given one, or one of the engine."""
    return begin_autocommit(database) if isinstance(database, Engine) else nullcontext(database)


@cache
def _compile(statement: Any) -> _Compiled:
    """Compile a statement for psycopg, with its constants written into the text."""
    from psycopg import sql  # which SQLite does not need

    compiled = statement.compile(dialect=PGDialect_psycopg())  # type: ignore[no-untyped-call]
    texts = {
        name: f"%({name})s" if parameter.required else sql.quote(parameter.value).replace("%", "%%")
        for name, parameter in compiled.binds.items()
    }
    text = str(compiled).replace("%%", "%%%%") % texts  # the driver replaces its placeholders, too
    return _Compiled(text, tuple(statement.exported_columns.keys()))
