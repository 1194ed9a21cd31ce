"""Endpoints of /v1/batches."""

from typing import Any

from flask import Blueprint, request
from sqlalchemy import func, select

from sandbox.engine import batch_actions
from sandbox.engine.parameters import check_metadata
from sandbox.errors import invalid
from sandbox.storage import clock
from sandbox.storage.store import Batch
from sandbox.web.api.request_context import (
    current_account,
    current_sandbox,
    query_limit,
    query_number,
    query_value,
    time_range,
)
from sandbox.web.bodies import read_object

batches = Blueprint("batches", __name__, url_prefix="/v1/batches")


@batches.post("")
def create_batch() -> dict[str, Any]:
    """Create a batch in a project."""
    body = read_object(request)
    if not isinstance(body.get("project"), str) or not body["project"]:
        raise invalid('"project" is required')
    with current_sandbox().store.write() as session:
        project = batch_actions.find_project(session, current_account(), body["project"])
        return batch_object(batch_actions.create_batch(session, current_account(), project, body))


@batches.get("")
def list_batches() -> dict[str, Any]:
    """List batches, newest first. No batch is ever archived here, so `exclude_archived` has no effect."""
    limit, offset = query_limit(), query_number("offset", 0, 0)
    mine = [Batch.account == current_account(), *time_range(Batch.created_at, "start_time", "end_time")]
    for name, column in (("project", Batch.project), ("status", Batch.status)):
        if (value := query_value(name)) is not None:
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
    """Return a batch by name."""
    with current_sandbox().store.read() as session:
        return batch_object(batch_actions.find_batch(session, current_account(), batch))


@batches.get("/<name:batch>/status")
def get_batch_status(batch: str) -> dict[str, Any]:
    """Return the status of a batch and the number of its tasks by status."""
    with current_sandbox().store.read() as session:
        found = batch_actions.find_batch(session, current_account(), batch)
        return {"status": found.status, **batch_actions.task_counts(session, found)}


@batches.post("/<name:batch>/finalize")
def finalize_batch(batch: str) -> dict[str, Any]:
    """Finalize a batch: it completes with its last task."""
    with current_sandbox().store.write() as session:
        found = batch_actions.find_batch(session, current_account(), batch)
        batch_actions.finalize(session, current_sandbox(), found)
        answer = batch_object(found)
    current_sandbox().work_available.set()
    return answer


@batches.post("/<name:batch>/prioritize")
def prioritize_batch(batch: str) -> dict[str, Any]:
    """Set the priority of a batch."""
    priority = read_object(request).get("priority")
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) >= 2**53:
        raise invalid('"priority" must be a number')
    with current_sandbox().store.write() as session:
        found = batch_actions.find_batch(session, current_account(), batch)
        found.priority = priority
        return batch_object(found)


@batches.post("/<name:batch>/setMetadata")
def set_batch_metadata(batch: str) -> dict[str, Any]:
    """Replace the metadata of a batch."""
    metadata = check_metadata(read_object(request))
    with current_sandbox().store.write() as session:
        found = batch_actions.find_batch(session, current_account(), batch)
        found.metadata_ = metadata
        return batch_object(found)


def batch_object(batch: Batch) -> dict[str, Any]:
    """Return a batch in the form of version 1."""
    shown = {
        "id": batch.id,
        "name": batch.name,
        "project": batch.project,
        "status": batch.status,
        "created_at": clock.format_timestamp(batch.created_at),
        "metadata": batch.metadata_,
        "callback": batch.callback or "",
        "calibration_batch": batch.calibration_batch,
        "self_label_batch": batch.self_label_batch,
    }
    if batch.completed_at is not None:
        shown["completed_at"] = clock.format_timestamp(batch.completed_at)
    if batch.priority is not None:
        shown["priority"] = batch.priority
    return shown
