"""Read joins: the steps that wait for the follow-ups of another step, and how they ended."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, select

from models import Join
from pipeline.db.sizes import read_row
from pipeline.follow_ups.joins import described, members_of
from pipeline.operations.queries.filters import Filters, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, Record, paginate

FILTERS = ("workflow", "step", "source_task_id")
OUTCOMES = ("fire", "hold", "stop")
WAITING = "waiting"


def list_joins(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return joins, the last opened first. Filters: workflow, step, source_task_id, verdict, outcome (or `waiting`)."""
    conditions: list[Any] = list(equal(Join, FILTERS, filters))
    if (verdict := filters.get("verdict")) is not None:
        conditions.append(Join.conclusion == verdict)
    if (outcome := filters.get("outcome")) is not None:
        conditions.append(Join.fired_at.is_(None) if outcome == WAITING else Join.verdict == outcome)
    statement = select(*Join.__table__.c).where(*conditions)
    page = paginate(connection, statement, [Join.opened_at, Join.id], limit=limit, cursor=cursor)
    return Page([described(row) for row in page.rows], page.next_cursor)


def get_join(connection: Connection, join_id: str) -> Record:
    """Return one join with its members. Raises NotFound."""
    row = read_row(connection, _DETAIL, id=join_id)
    if row is None:
        raise NotFound(f"no join {join_id} is known")
    return {**described(row), "members": members_of(connection, row)}


_DETAIL = select(*Join.__table__.c).where(Join.id == bindparam("id"))
