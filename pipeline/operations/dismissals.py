"""Dismiss quarantined deliveries and dead jobs: health checks stop warning about them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, delete, update

from models import Delivery, Job
from pipeline.access.audit import log_action
from pipeline.db.ids import utcnow
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries.deliveries import get_delivery
from pipeline.operations.queries.jobs import get_job


def dismiss_delivery(connection: Connection, delivery_id: UUID, actor: str, reason: str) -> None:
    """Mark a quarantined delivery as dismissed. It stays stored and can be replayed. Raises NotFound and InvalidTransition."""
    row = get_delivery(connection, delivery_id)
    if row["status"] != "quarantined":
        raise InvalidTransition(f"the delivery is {row['status']}; only a quarantined one can be dismissed")
    connection.execute(update(Delivery).where(Delivery.id == delivery_id).values(dismissed_at=utcnow()))
    log_action(connection, actor, "delivery.dismiss", str(delivery_id), {"reason": reason})


def dismiss_job(connection: Connection, job_id: UUID, actor: str, reason: str) -> None:
    """Delete a dead job. The audit log keeps what it was. Raises NotFound and InvalidTransition."""
    row = get_job(connection, job_id)
    deleted = connection.execute(delete(Job).where(Job.id == job_id, Job.state == "dead")).rowcount
    if not deleted:
        raise InvalidTransition(f"the job is {row['state']}; only a dead one can be dismissed")
    details = {"reason": reason, "last_error": row["last_error"], "attempts": row["attempts"]}
    log_action(connection, actor, "job.dismiss", f"{row['kind']}:{row['subject']}", details)
