"""Tables of models as SQLAlchemy Core sees them, for statements that name every column or are built once."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Connection, Table, text, type_coerce
from sqlalchemy.dialects.postgresql import JSONB

from models import FollowUp, Join, Task

TASKS = cast(Table, Task.__table__)
FOLLOW_UPS = cast(Table, FollowUp.__table__)
JOINS = cast(Table, Join.__table__)


def has_tag(connection: Connection, tag: str) -> Any:
    """Return the condition that a task has this tag."""
    if connection.dialect.name == "postgresql":
        return type_coerce(Task.tags, JSONB).contains([tag])
    return text("EXISTS (SELECT 1 FROM json_each(tasks.tags) WHERE value = :tag)").bindparams(tag=tag)
