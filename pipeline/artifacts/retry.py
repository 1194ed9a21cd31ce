"""Retry one artifact because a person asks for it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select, update

from models import Artifact, Task
from pipeline.access.audit import log_action
from pipeline.jobs import kinds, queue


class ArtifactPurged(Exception):
    """Raised when a file that was purged, or whose task was, would be fetched again."""


def retry(connection: Connection, artifact_id: UUID, actor: str) -> list[UUID]:
    """Fetch a failed file again, or read a stored one again, and audit it. Returns the ids of the jobs to dispatch.

    Raises LookupError for an unknown artifact, and ArtifactPurged.
    """
    columns = (Artifact.state, Artifact.purged_at, Task.purged_at.label("task_purged_at"))
    known = connection.execute(
        select(*columns)
        .join(Task, Task.task_id == Artifact.task_id)
        .where(Artifact.id == artifact_id)
        .with_for_update(of=Artifact)
    ).one_or_none()
    if known is None:
        raise LookupError(f"there is no artifact {artifact_id}")
    if (purged_at := known.purged_at or known.task_purged_at) is not None:
        raise ArtifactPurged(
            f"artifact {artifact_id} was purged on {purged_at:%Y-%m-%d}; it is not fetched again"
        )
    state = known.state
    values: dict[str, Any] = {"state": "pending", "attempts": 0, "first_attempt_at": None, "reason": None}
    if state == "failed":
        values["sha256"] = None
    connection.execute(update(Artifact).where(Artifact.id == artifact_id).values(**values))
    job_ids = queue.enqueue(connection, kinds.FETCH, [str(artifact_id)])
    for job_id in job_ids:  # also a job that is in back-off
        queue.retry(connection, job_id)
    log_action(connection, actor, "artifact.retry", str(artifact_id))
    return job_ids
