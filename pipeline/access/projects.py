"""The project that a task, delivery, file or follow-up belongs to, for tokens that are bound to projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, select

from models import Artifact, Delivery, FollowUp, Task


def _through_task(key: Any, task_id: Any) -> Select[Any]:
    return select(Task.project).join(key.class_, task_id == Task.task_id)


PROJECTS: Mapping[str, tuple[Any, Select[Any]]] = {
    "task_id": (Task.task_id, select(Task.project)),
    "delivery_id": (Delivery.id, _through_task(Delivery.id, Delivery.task_id)),
    "artifact_id": (Artifact.id, _through_task(Artifact.id, Artifact.task_id)),
    "unique_id": (FollowUp.unique_id, _through_task(FollowUp.unique_id, FollowUp.source_task_id)),
}
"""Name of an id → its column, and the statement that selects the project. A follow-up belongs to its source's."""


def project_of(connection: Connection, name: str, value: object) -> str | None:
    """Return the project of what an id names; None if there is none, or nothing has that id."""
    key, statement = PROJECTS[name]
    found: str | None = connection.scalar(statement.where(key == value))
    return found
