"""What a purge needs to know before it deletes: which dataset versions refer to a task, and that one lost members."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from more_itertools import chunked
from sqlalchemy import Connection, select, update

from models import DatasetItem, DatasetVersion

IDS_BATCH_SIZE = 500


def versions_with(connection: Connection, task_ids: Iterable[str]) -> dict[str, list[str]]:
    """Return name@version → task_ids of each dataset version that one of these tasks is a member of."""
    found: dict[str, list[str]] = {}
    for some in _batches(task_ids):
        statement = (
            select(DatasetVersion.name, DatasetVersion.version, DatasetItem.task_id)
            .join(DatasetItem, DatasetItem.version_id == DatasetVersion.id)
            .where(DatasetVersion.name.is_not(None), DatasetItem.task_id.in_(some))
            .order_by(DatasetVersion.name, DatasetVersion.version, DatasetItem.position)
        )
        for name, version, task_id in connection.execute(statement):
            found.setdefault(f"{name}@{version}", []).append(task_id)
    return found


def record_damage(connection: Connection, task_ids: Iterable[str]) -> dict[str, list[str]]:
    """Record in every dataset version that has one of these tasks that their results were deleted. Return what versions_with returns.

    The members stay listed, so that `show` and `verify` say what is missing.
    """
    found = versions_with(connection, task_ids)
    for reference, lost in found.items():
        name, _, version = reference.rpartition("@")
        where = (DatasetVersion.name == name, DatasetVersion.version == int(version))
        before = connection.scalar(select(DatasetVersion.damage).where(*where))
        sentence = f"The results of {len(lost)} members were deleted on purpose, among them {lost[0]}."
        damage = f"{before} {sentence}" if before else sentence
        connection.execute(update(DatasetVersion).where(*where).values(damage=damage))
    return found


def _batches(task_ids: Iterable[str]) -> Iterable[Sequence[str]]:
    return chunked(sorted(set(task_ids)), IDS_BATCH_SIZE)
