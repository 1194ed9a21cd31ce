"""Deliveries that are read after they were answered: large ones, replayed ones, and tasks that Scale is asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, select

from models import Delivery, Response, Task
from pipeline import jobs
from pipeline.jobs import Job, Wait
from pipeline.receive import Receipt, Received, mark, read, receive, take_or_quarantine, told
from pipeline.service import Service
from scale.client import PermanentError

log = logging.getLogger(__name__)

NO_KEY_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay: the delivery's and the task's standing before and after, and the jobs to ring for."""

    receipt: Receipt
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """name → (before, after)"""
        return {
            name: (self.before[name], now) for name, now in self.after.items() if self.before[name] != now
        }


def parse(service: Service, job: Job) -> None:
    """Read a delivery that was only stored when it was answered."""
    with service.engine.begin() as connection:
        if _delivery(connection, UUID(job.subject)).status == "stored":
            _take_again(connection, service, UUID(job.subject), reread=False)
        jobs.finish(connection, job)


def replay(service: Service, delivery_id: UUID) -> Replay:
    """Take a kept delivery the same way once more, with the code as it is now. Creates nothing twice.

    Raises LookupError when there is no such delivery.
    """
    with service.engine.begin() as connection:
        before = _standing(connection, delivery_id)
        receipt = _take_again(connection, service, delivery_id, reread=True)
        return Replay(receipt, before, _standing(connection, delivery_id))


def complete(service: Service, job: Job) -> None:
    """Ask Scale for a task that a delivery named without describing it, and take the answer as one more delivery."""
    with service.reader.begin() as connection:
        task = connection.execute(
            select(Task.environment, Task.type).where(Task.task_id == job.subject)
        ).one_or_none()
    if task is not None and task.type is None:
        client = service.client(task.environment)
        if client is None:
            raise Wait(f"no API key for {task.environment} tasks is set", NO_KEY_SECONDS)
        try:
            receive_task(service, client.get_task(job.subject), task.environment)
        except PermanentError as unknown:
            log.warning("task %s stays undescribed; Scale says: %s", job.subject, unknown)
    with service.engine.begin() as connection:
        jobs.finish(connection, job)


def receive_task(
    service: Service, task: Mapping[str, Any], environment: str, *, kind: str = "reconciled"
) -> Receipt:
    """Take a task object from Scale's API or an export the way a callback with it would be taken."""
    body = orjson.dumps(task, option=orjson.OPT_SORT_KEYS)
    return receive(
        service.engine,
        body,
        environment,
        interested=service.interested,
        inline_bytes=service.settings.inline_callback_bytes,
        kind=kind,
    )


def _delivery(connection: Connection, delivery_id: UUID) -> Any:
    found = connection.execute(
        select(Delivery.status, Delivery.reason, Delivery.task_id).where(Delivery.id == delivery_id)
    ).one_or_none()
    if found is None:
        raise LookupError(f"there is no delivery {delivery_id}")
    return found


def _take_again(connection: Connection, service: Service, delivery_id: UUID, *, reread: bool) -> Receipt:
    row = connection.execute(
        select(Delivery.kind, Delivery.environment, Delivery.received_at, Delivery.body)
        .where(Delivery.id == delivery_id)
        .with_for_update()
    ).one()
    delivery = Received(delivery_id, row.kind, row.environment, row.received_at)
    reading = read(row.body, row.environment)
    mark(connection, delivery_id, **told(delivery, reading))
    return take_or_quarantine(connection, delivery, reading, service.interested, reread=reread)


def _standing(connection: Connection, delivery_id: UUID) -> dict[str, Any]:
    """What a replay can change, as a person would compare it."""
    delivery = _delivery(connection, delivery_id)
    standing: dict[str, Any] = {"delivery": delivery.status, "reason": delivery.reason}
    task = connection.execute(
        select(
            Task.type,
            Task.status,
            Task.review_status,
            Task.response_count,
            Response.number,
            Response.annotation_count,
        )
        .outerjoin(Response, Response.id == Task.response_id)
        .where(Task.task_id == delivery.task_id)
    ).one_or_none()
    names = ("type", "status", "review", "response_count", "response_number", "annotation_count")
    return standing | dict(zip(names, task or [None] * len(names), strict=True))
