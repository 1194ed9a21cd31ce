"""Retry dead and waiting jobs, as a person asks for: each retry is in the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from pipeline.access.audit import log_action
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.jobs import queue
from pipeline.operations.queries.jobs import get_job


def retry_job(connection: Connection, job_id: UUID, actor: str) -> Mapping[str, Any]:
    """Make a dead or waiting job due now, with its attempts reset. Return the job; dispatch its id after the commit.

    Raises NotFound, and InvalidTransition for a running job.
    """
    get_job(connection, job_id)
    if not queue.retry(connection, job_id):
        raise InvalidTransition("The job is running; wait for its outcome.")
    row = get_job(connection, job_id)
    log_action(connection, actor, "job.retry", f"{row['kind']}:{row['subject']}")
    return row
