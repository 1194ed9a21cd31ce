"""Rows of exports: what was requested, how far it is, and where its zip is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, select, update

from models import Export, Job
from pipeline.access.audit import log_action
from pipeline.artifacts.references import is_unused
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, utcnow
from pipeline.jobs import kinds, queue
from pipeline.operations.queries import NotFound, Page, Record
from pipeline.operations.queries.paging import DEFAULT_LIMIT, paginate

WAITING, RUNNING, COMPLETED, FAILED = STATES = ("waiting", "running", "completed", "failed")

COLUMNS = (
    Export.id,
    Export.format,
    Export.dataset,
    Export.filters,
    Export.options,
    Export.state,
    Export.tasks_done,
    Export.tasks_total,
    Export.reason,
    Export.sha256,
    Export.size_bytes,
    Export.report,
    Export.created_at,
    Export.completed_at,
)


def insert_export(
    connection: Connection,
    actor: str,
    format_name: str,
    dataset: str | None,
    filters: dict[str, Any] | None,
    options: dict[str, Any],
) -> tuple[UUID, list[UUID]]:
    """Insert an export with its job, and audit it. Return its id, and the jobs to dispatch after the commit."""
    export_id = new_id()
    connection.execute(
        insert(connection, Export).values(
            id=export_id,
            format=format_name,
            dataset=dataset,
            filters=filters,
            options=options,
            state=WAITING,
            tasks_done=0,
            created_at=utcnow(),
        )
    )
    log_action(
        connection, actor, "export.create", str(export_id), {"format": format_name, "dataset": dataset}
    )
    return export_id, queue.enqueue(connection, kinds.EXPORT, [str(export_id)])


def list_exports(connection: Connection, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page:
    """Return exports, newest first."""
    page = paginate(connection, select(*COLUMNS), [Export.id], limit=limit, cursor=cursor)
    return Page(_with_dead_jobs(connection, page.rows), page.next_cursor)


def get_export(connection: Connection, export_id: UUID) -> Record:
    """Return one export. Raises NotFound."""
    row = connection.execute(select(*COLUMNS).where(Export.id == export_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no export {export_id} is known")
    return _with_dead_jobs(connection, [dict(row)])[0]


def _with_dead_jobs(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return the rows, with state failed where the job is dead: a job that kills its workers cannot record that itself."""
    keys = [f"{kinds.EXPORT}:{row['id']}" for row in rows]
    dead = select(Job.subject, Job.last_error).where(Job.key.in_(keys), Job.state == "dead")
    errors = {UUID(subject): error for subject, error in connection.execute(dead)}
    return [
        {**row, "state": FAILED, "reason": errors[row["id"]]} if row["id"] in errors else dict(row)
        for row in rows
    ]


def set_progress(connection: Connection, export_id: UUID, done: int, total: int) -> None:
    """Record how many steps are done, of how many."""
    values = {"state": RUNNING, "tasks_done": done, "tasks_total": total}
    connection.execute(update(Export).where(Export.id == export_id).values(**values))


def complete(
    connection: Connection, export_id: UUID, sha256: str, size_bytes: int, report: dict[str, Any]
) -> bool:
    """Record the zip of a finished export. Return False if the export was deleted meanwhile."""
    values = {
        "state": COMPLETED,
        "sha256": sha256,
        "size_bytes": size_bytes,
        "report": report,
        "reason": None,
        "completed_at": utcnow(),
    }
    return bool(connection.execute(update(Export).where(Export.id == export_id).values(**values)).rowcount)


def fail(connection: Connection, export_id: UUID, reason: str) -> None:
    """Record why an export cannot be written."""
    values = {"state": FAILED, "reason": reason, "completed_at": utcnow()}
    connection.execute(update(Export).where(Export.id == export_id).values(**values))


def find_zip(connection: Connection, export_id: UUID) -> tuple[str, str]:
    """Return the sha256 and the file name of a completed export. Raises NotFound for one that has no zip."""
    row = get_export(connection, export_id)
    if row["state"] != COMPLETED or row["sha256"] is None:
        raise NotFound(f"no export {export_id} has a zip: it is {row['state']}")
    return row["sha256"], f"{(row['dataset'] or 'export').replace('@', '-')}-{row['format']}.zip"


def delete_export(connection: Connection, export_id: UUID, actor: str) -> str | None:
    """Delete an export with its waiting job, and audit it. Raises NotFound.

    Returns the sha256 of its zip if nothing else refers to it: delete it from the store after the commit.
    """
    row = connection.execute(
        delete(Export).where(Export.id == export_id).returning(Export.id, Export.sha256)
    ).one_or_none()
    if row is None:
        raise NotFound(f"no export {export_id} is known")
    queue.delete_pending(connection, kinds.EXPORT, [str(export_id)])
    log_action(connection, actor, "export.delete", str(export_id))
    return row.sha256 if row.sha256 is not None and is_unused(connection, row.sha256) else None
