"""Load tasks as planning sees them, for previews and explanations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, Engine

from pipeline.db.memory_budget import ReadTooLarge, temporary_reads
from pipeline.follow_ups.views import ContentPurged, load_snapshot
from pipeline.operations.queries.filters import Gone
from pipeline.operations.queries.tasks import (
    has_task,
    ids_changed_since,
    stored_characters,
    task_not_found,
)
from workflows.planning.view import View

MAX_CHARACTERS = 8 * 1024 * 1024


class TooLarge(Exception):
    """Raised when a task is too large to be planned outside of a worker."""

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"task {task_id} is too large to be planned here; run `weighbridge workflows plan --task`"
        )


class FilesPending(Exception):
    """Raised when a task cannot be planned yet because result files are still to be fetched."""


def get_view(connection: Connection, task_id: str, max_characters: int | None = None) -> View:
    """Return the view of one task. Raises NotFound, Gone, FilesPending, and TooLarge above `max_characters`."""
    if max_characters is not None and stored_characters(connection, task_id) > max_characters:
        raise TooLarge(task_id)
    try:
        snapshot = load_snapshot(connection, task_id)
    except ContentPurged as purged:
        raise Gone(str(purged)) from None
    if snapshot is None:
        if not has_task(connection, task_id):
            raise task_not_found(task_id)
        raise FilesPending(
            f"files of task {task_id} are still to be fetched; it is planned once they are read"
        )
    return snapshot.view


def views_since(engine: Engine, moment: datetime) -> Iterator[View | None]:
    """Yield the view of every task that changed at `moment` or later and whose files are read, one at a time in memory.

    None: a task that is too large for a web process.
    """
    with engine.begin() as connection:
        task_ids = ids_changed_since(connection, moment)
    for task_id in task_ids:
        with temporary_reads():
            try:
                with engine.begin() as connection:
                    snapshot = load_snapshot(connection, task_id)
            except ContentPurged:
                continue
            except ReadTooLarge:
                yield None
                continue
            if snapshot is not None:
                yield snapshot.view
