"""The artifact's row: what a fetch job reads of it, and how each later step makes sure that the row is still its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, update

from models import Artifact, Task
from pipeline.jobs import queue
from pipeline.jobs.queue import Job
from scale.task_types import task_type

MAX_REASON_LENGTH = 2_000

CheckLease = Callable[[], None]
"""Raises LeaseLost once another worker has the job."""


class ArtifactSuperseded(Exception):
    """Raised when the response was parsed again and refers to other files, so that this artifact is no longer wanted."""


@dataclass(frozen=True, slots=True)
class File:
    """An artifact under work, with the columns of its task that are needed to read it."""

    id: UUID
    response_id: UUID
    task_id: str
    ordinal: int
    role: str
    url: str
    state: str
    sha256: str | None  # of the content, once it is in the store
    attempts: int
    first_attempt_at: datetime | None
    task_type: str | None
    params: dict[str, Any] | None

    @property
    def is_segmentation(self) -> bool:
        """Return whether the response's rows are masks that an index image completes."""
        return task_type(self.task_type).implied == "mask"


def load_file(connection: Connection, artifact_id: UUID) -> File | None:
    """Lock the artifact and return it with its task's columns; None if the artifact is gone."""
    statement = (
        select(
            *(getattr(Artifact, name) for name in File.__slots__ if name not in ("task_type", "params")),
            Task.type.label("task_type"),
            Task.params,
        )
        .join(Task, Task.task_id == Artifact.task_id)
        .where(Artifact.id == artifact_id)
        .with_for_update(of=Artifact)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else File(**row._mapping)


def lock_pending(connection: Connection, job: Job, file: File) -> dict[str, Any]:
    """Lock the task and return the columns that the last step needs: {task_id, type, follow_up_unique_id, current, annotation_count,
    response_id}.

    Raises ArtifactSuperseded if the artifact is not pending any more, LeaseLost if another worker has the job.
    """
    task = (
        connection.execute(
            select(Task.task_id, Task.type, Task.follow_up_unique_id, Task.response_id.label("current"))
            .where(Task.task_id == file.task_id)
            .with_for_update()
        )
        .mappings()
        .one()
    )
    artifact = connection.execute(
        select(Artifact.annotation_count, Artifact.response_id).where(
            Artifact.id == file.id, Artifact.state == "pending"
        )
    ).one_or_none()
    if artifact is None:
        raise ArtifactSuperseded
    queue.check_lease(connection, job)
    return {**task, **artifact._mapping}


def update_artifact(connection: Connection, file: File, **values: Any) -> None:
    """Set columns of the artifact's row."""
    connection.execute(update(Artifact).where(Artifact.id == file.id).values(**values))
