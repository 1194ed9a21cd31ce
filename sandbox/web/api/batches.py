"""/v1/batches."""

from typing import Any

from flask import Blueprint, request
from sqlalchemy import func, select

from sandbox.engine import batch_actions as deeds
from sandbox.engine.parameters import check_metadata
from sandbox.errors import invalid
from sandbox.storage import clock
from sandbox.storage.store import Batch
from sandbox.web.api.calls import account, current_sandbox, query, query_limit, query_number, within
from sandbox.web.bodies import read_object

batches = Blueprint("batches", __name__, url_prefix="/v1/batches")


@batches.post("")
def create_batch() -> dict[str, Any]:
    body = read_object(request)
    if not isinstance(body.get("project"), str) or not body["project"]:
        raise invalid('"project" is required')
    with current_sandbox().store.write() as session:
        project = deeds.find_project(session, account(), body["project"])
        return batch_object(deeds.create_batch(session, account(), project, body))


@batches.get("")
def list_batches() -> dict[str, Any]:
    """Newest first. Nothing is ever archived here, so `exclude_archived` changes nothing."""
    limit, offset = query_limit(), query_number("offset", 0, 0)
    mine = [Batch.account == account(), *within(Batch.created_at, "start_time", "end_time")]
    for name, column in (("project", Batch.project), ("status", Batch.status)):
        if (value := query(name)) is not None:
            mine.append(column == value)
    with current_sandbox().store.read() as session:
        total = session.scalar(select(func.count()).select_from(Batch).where(*mine)) or 0
        newest_first = select(Batch).where(*mine).order_by(Batch.number.desc())
        found = session.scalars(newest_first.offset(offset).limit(limit))
        docs = [batch_object(batch) for batch in found]
    return {
        "docs": docs,
        "totalDocs": total,
        "total": total,
        "limit": limit,
        "offset": offset,
        "has_more": offset + len(docs) < total,
    }


@batches.get("/<name:batch>")
def get_batch(batch: str) -> dict[str, Any]:
    with current_sandbox().store.read() as session:
        return batch_object(deeds.find_batch(session, account(), batch))


@batches.get("/<name:batch>/status")
def batch_status(batch: str) -> dict[str, Any]:
    with current_sandbox().store.read() as session:
        found = deeds.find_batch(session, account(), batch)
        return {"status": found.status, **deeds.task_counts(session, found)}


@batches.post("/<name:batch>/finalize")
def finalize_batch(batch: str) -> dict[str, Any]:
    with current_sandbox().store.write() as session:
        found = deeds.find_batch(session, account(), batch)
        deeds.finalize(session, current_sandbox(), found)
        answer = batch_object(found)
    current_sandbox().wake()
    return answer


@batches.post("/<name:batch>/prioritize")
def prioritize_batch(batch: str) -> dict[str, Any]:
    priority = read_object(request).get("priority")
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) >= 2**53:
        raise invalid('"priority" must be a number')
    with current_sandbox().store.write() as session:
        found = deeds.find_batch(session, account(), batch)
        found.priority = priority
        return batch_object(found)


@batches.post("/<name:batch>/setMetadata")
def set_batch_metadata(batch: str) -> dict[str, Any]:
    metadata = check_metadata(read_object(request))
    with current_sandbox().store.write() as session:
        found = deeds.find_batch(session, account(), batch)
        found.metadata_ = metadata
        return batch_object(found)


def batch_object(batch: Batch) -> dict[str, Any]:
    """The batch as v1 shows it."""
    shown = {
        "id": batch.id,
        "name": batch.name,
        "project": batch.project,
        "status": batch.status,
        "created_at": clock.iso(batch.created_at),
        "metadata": batch.metadata_,
        "callback": batch.callback or "",
        "calibration_batch": batch.calibration_batch,
        "self_label_batch": batch.self_label_batch,
    }
    if batch.completed_at is not None:
        shown["completed_at"] = clock.iso(batch.completed_at)
    if batch.priority is not None:
        shown["priority"] = batch.priority
    return shown
