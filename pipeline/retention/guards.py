"""What a purge leaves alone: tasks of runs that go on, and members of dataset versions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from more_itertools import chunked
from sqlalchemy import Connection, select

from models import Artifact, DatasetItem, DatasetVersion, FollowUp, Job, MissedTask, Task
from pipeline.datasets.holds import versions_with
from pipeline.follow_ups.runs import is_open, root_of
from pipeline.jobs import kinds

ID_BATCH_SIZE = 500
MAX_CACHED_RUNS = 10_000


class OpenRuns:
    """Which tasks belong to a run that goes on: its expressions, joins and files may still need every task of it."""

    def __init__(self) -> None:
        self._open: dict[str, bool] = {}

    def among(self, connection: Connection, task_ids: Iterable[str]) -> set[str]:
        """Return those of the tasks whose run may still create, join or plan something."""
        found: set[str] = set()
        for some in chunked(sorted(set(task_ids)), ID_BATCH_SIZE):
            waiting = _waiting(connection, some)
            of_runs = _with_follow_ups(connection, [one for one in some if one not in waiting])
            found |= waiting | {one for one in of_runs if self._is_open(connection, one)}
        return found

    def _is_open(self, connection: Connection, task_id: str) -> bool:
        root = root_of(connection, task_id)
        if root not in self._open:
            if len(self._open) >= MAX_CACHED_RUNS:
                self._open.clear()
            self._open[root] = is_open(connection, root)
        return self._open[root]


def _waiting(connection: Connection, task_ids: Sequence[str]) -> set[str]:
    """Return the tasks that a job or a resumed workflow will plan, that have an unread file, or that an export is reading."""
    keys = {f"{kinds.PLAN}:{task_id}": task_id for task_id in task_ids}
    jobs = select(Job.key).where(Job.key.in_(keys), Job.state != "dead")
    unread = select(Artifact.task_id).where(Artifact.task_id.in_(task_ids), Artifact.state == "pending")
    missed = select(MissedTask.task_id).where(MissedTask.task_id.in_(task_ids))
    exported = (
        select(DatasetItem.task_id)
        .join(DatasetVersion, DatasetVersion.id == DatasetItem.version_id)
        .where(DatasetItem.task_id.in_(task_ids), DatasetVersion.name.is_(None))
    )
    return {keys[key] for key in connection.scalars(jobs)}.union(
        *(connection.scalars(one) for one in (unread, missed, exported))
    )


def _with_follow_ups(connection: Connection, task_ids: Sequence[str]) -> set[str]:
    """Return the tasks that a follow-up created, or that have follow-ups of their own."""
    created = select(Task.task_id).where(Task.task_id.in_(task_ids), Task.follow_up_unique_id.is_not(None))
    sources = select(FollowUp.source_task_id).where(FollowUp.source_task_id.in_(task_ids)).distinct()
    return set(connection.scalars(created)) | set(connection.scalars(sources))


def members(connection: Connection, task_ids: Iterable[str]) -> dict[str, set[str]]:
    """name@version of each dataset version that one of these tasks is a member of → those tasks."""
    return {name: set(found) for name, found in versions_with(connection, task_ids).items()}
