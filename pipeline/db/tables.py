"""Tables of models as SQLAlchemy Core sees them, for statements that name every column or are built once."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Connection, Table, text, type_coerce
from sqlalchemy.dialects.postgresql import JSONB

from models import Base, FollowUp, Join, Task

TASKS = cast(Table, Task.__table__)
FOLLOW_UPS = cast(Table, FollowUp.__table__)
JOINS = cast(Table, Join.__table__)


def column_names(model: type[Base], *, but: str = "") -> str:
    """Return SQL of the names of the columns that this code knows, without the one that has a parameter of its own."""
    return ", ".join(column.name for column in model.__table__.columns if column.name != but)


def record(model: type[Base], alias: str, parameter: str) -> str:
    """Return PostgreSQL's SQL of one row from a parameter that holds it as JSON; its columns are null where that lacks them."""
    return f"jsonb_populate_record(NULL::{model.__tablename__}, {parameter}::jsonb) AS {alias}"


def has_tag(connection: Connection, tag: str) -> Any:
    """Return the condition that a task has this tag."""
    if connection.dialect.name == "postgresql":
        return type_coerce(Task.tags, JSONB).contains([tag])
    return text("EXISTS (SELECT 1 FROM json_each(tasks.tags) WHERE value = :tag)").bindparams(tag=tag)
