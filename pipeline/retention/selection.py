"""What a purge selects, page by page in the order of receipt, so that every statement is short whatever the tables hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, func, literal, null, or_, select

from models import Artifact, Delivery, Task
from pipeline.db.ids import first_id_at

PAGE_SIZE = 1_000
"""Rows of the table that one statement looks at."""

BODIES, ARTIFACTS, ROWS = CLASSES = ("bodies", "artifacts", "rows")
"""bodies: the bytes of deliveries. artifacts: the content of result files. rows: what was read from both."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to purge: of the chosen classes everything that all the filters match."""

    classes: tuple[str, ...]
    before: datetime | None = None
    """Only what was received, and for tasks also last changed, before."""
    environment: str | None = None
    project: str | None = None
    task_ids: tuple[str, ...] = ()
    """Only these tasks; then deliveries in quarantine are purged as well."""
    force: bool = False
    """Purge members of dataset versions, too, and record in the versions that they are gone."""

    def described(self) -> dict[str, Any]:
        """Return the selection for the audit log and for reports."""
        filters = {"environment": self.environment, "project": self.project}
        return {
            "classes": list(self.classes),
            **{name: value for name, value in filters.items() if value is not None},
            **({"before": self.before.isoformat()} if self.before else {}),
            **({"task_ids": list(self.task_ids)} if self.task_ids else {}),
            **({"force": True} if self.force else {}),
        }


class Candidate(NamedTuple):
    """A delivery, an artifact or a task that a purge may empty."""

    id: UUID
    task_id: str | None
    size_bytes: int
    sha256: str | None = None  # of an artifact's content
    version: UUID | None = None  # a task's newest delivery: a later one means that the task has changed


class Page(NamedTuple):
    """One page of a table: the matching rows, and the id to continue after; None at the end."""

    candidates: list[Candidate]
    last_id: UUID | None


def page(connection: Connection, name: str, selection: Selection, after: UUID | None) -> Page:
    """Return the next page of what the class `name` selects."""
    model: Any = {BODIES: Delivery, ARTIFACTS: Artifact, ROWS: Task}[name]
    looked_at = select(model.id).order_by(model.id).limit(PAGE_SIZE)
    if after is not None:
        looked_at = looked_at.where(model.id > after)
    if selection.before is not None:
        looked_at = looked_at.where(model.id < first_id_at(selection.before))
    if selection.task_ids:
        looked_at = looked_at.where(model.task_id.in_(selection.task_ids))
    ids = connection.scalars(looked_at).all()
    if not ids:
        return Page([], None)
    statement = select(*_columns(name)).where(
        model.id.between(ids[0], ids[-1]), model.purged_at.is_(None), *_conditions(name, selection)
    )
    if name != ROWS:
        statement = statement.outerjoin(Task, Task.task_id == model.task_id)
    rows = connection.execute(statement.order_by(model.id)).all()
    return Page([Candidate(*row) for row in rows], ids[-1] if len(ids) == PAGE_SIZE else None)


def _columns(name: str) -> Sequence[Any]:
    if name == BODIES:
        return (Delivery.id, Delivery.task_id, Delivery.size_bytes)
    if name == ARTIFACTS:
        return (Artifact.id, Artifact.task_id, func.coalesce(Artifact.size_bytes, 0), Artifact.sha256)
    return (Task.id, Task.task_id, literal(0), null(), Task.clock_delivery_id)


def _conditions(name: str, selection: Selection) -> Sequence[ColumnElement[bool]]:
    owner: Any = Delivery if name == BODIES else Task
    found = [owner.environment == selection.environment] if selection.environment else []
    if selection.project is not None:
        found.append(Task.project == selection.project)
    if selection.task_ids:
        found.append(
            {BODIES: Delivery.task_id, ARTIFACTS: Artifact.task_id, ROWS: Task.task_id}[name].in_(
                selection.task_ids
            )
        )
    return [*found, *{BODIES: _bodies, ARTIFACTS: _artifacts, ROWS: _tasks}[name](selection)]


def _bodies(selection: Selection) -> Sequence[ColumnElement[bool]]:
    """Return the conditions of bodies: applied ones, and quarantined ones that were dismissed or whose task is named.

    A body in quarantine is the only record of what was not understood.
    """
    if selection.task_ids:
        return [Delivery.status != "stored"]
    dismissed = Delivery.dismissed_at.is_not(None) & (Delivery.status == "quarantined")
    return [or_(Delivery.status == "processed", dismissed)]


def _artifacts(_: Selection) -> Sequence[ColumnElement[bool]]:
    return [Artifact.state == "stored"]


def _tasks(selection: Selection) -> Sequence[ColumnElement[bool]]:
    """Return the conditions of tasks: a pending one still waits for its result."""
    finished = [Task.status.is_distinct_from("pending")]
    if selection.before is not None:
        finished.append(or_(Task.clock.is_(None), Task.clock < selection.before))
    return finished
