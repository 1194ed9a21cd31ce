"""Deliveries that are read after they were answered: large ones, replayed ones, and tasks that Scale is asked for."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, LargeBinary, exists, func, select, update

from models import Delivery, Response, Task
from pipeline.db.engine import close_on_return
from pipeline.db.ids import new_id
from pipeline.events.outbox import event_publisher
from pipeline.jobs import queue
from pipeline.jobs.queue import Job, RetryLater
from pipeline.receive.receive import DatabaseBusy, Receipt, apply_or_quarantine, parse_body, receive
from pipeline.receive.rows import DeliveryMeta, parsed_columns, update_delivery
from pipeline.service import Service
from scale.canonical import canonical_json
from scale.client import PermanentError
from scale.envelope import Callback, InvalidCallback

log = logging.getLogger(__name__)

NO_KEY_SECONDS = 900.0
IDS_BATCH_SIZE = 500
CHUNK_BYTES = 1024 * 1024
LARGE_BODY_RETRY_SECONDS = 0.5
_large_body = threading.Lock()


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


def parse_delivery(service: Service, job: Job) -> None:
    """Read a delivery that was only stored when it was answered."""
    leased = queue.keep_lease(service.engine, job, service.settings.lease_seconds)
    with leased, _one_large_body(), _without_collection():
        delivery, reading = _read_again(service, UUID(job.subject))
        with service.engine.begin() as connection:
            close_on_return(connection)
            if _delivery(connection, delivery.id).status == "stored":
                _take_again(connection, service, delivery, reading, reparse=False)
                if (tell := event_publisher(service)) is not None:
                    tell(connection, delivery, reading)
            queue.finish(connection, job)


def replay(service: Service, delivery_id: UUID) -> Replay:
    """Take a kept delivery the same way once more, with the code as it is now. Creates nothing twice.

    Raises LookupError when there is no such delivery, and Busy when its task is in use for too long.
    """
    delivery, reading = _read_again(service, delivery_id)
    with service.engine.begin() as connection:
        before = _standing(connection, delivery_id)
        receipt = _take_again(connection, service, delivery, reading, reparse=True)
        return Replay(receipt, before, _standing(connection, delivery_id))


def replay_many(
    service: Service, *conditions: ColumnElement[bool], after: UUID | None = None
) -> Iterator[tuple[UUID, Replay | DatabaseBusy]]:
    """Replay the deliveries that meet all `conditions`, each by itself; Busy for one whose task is in use for too long."""
    for delivery_id in iter_ids(service, *conditions, after=after):
        try:
            yield delivery_id, replay(service, delivery_id)
        except DatabaseBusy as busy:
            yield delivery_id, busy


def iter_ids(service: Service, *conditions: ColumnElement[bool], after: UUID | None = None) -> Iterator[UUID]:
    """Ids of the deliveries that meet all `conditions` (on columns of Delivery), oldest first, behind `after`.

    They are looked for page by page: what is replayed meanwhile may leave the choice, and what comes in does not join it.
    """
    newest = new_id()
    while True:
        some = select(Delivery.id).where(*conditions, Delivery.id < newest).order_by(Delivery.id)
        if after is not None:
            some = some.where(Delivery.id > after)
        with service.reader.begin() as connection:
            page = connection.scalars(some.limit(IDS_BATCH_SIZE)).all()
        yield from page
        if len(page) < IDS_BATCH_SIZE:
            return
        after = page[-1]


def complete_task(service: Service, job: Job) -> None:
    """Ask Scale for a task that a delivery named without describing it, and take the answer as one more delivery."""
    with service.reader.begin() as connection:
        task = connection.execute(
            select(Task.environment, Task.type).where(Task.task_id == job.subject)
        ).one_or_none()
    if task is not None and task.type is None:
        client = service.client(task.environment)
        if client is None:
            raise RetryLater(f"no API key for {task.environment} tasks is set", NO_KEY_SECONDS)
        try:
            receive_task(service, client.get_task(job.subject), task.environment)
        except PermanentError as unknown:
            log.warning("task %s stays undescribed; Scale says: %s", job.subject, unknown)
    with service.engine.begin() as connection:
        queue.finish(connection, job)


def receive_task(
    service: Service, task: Mapping[str, Any], environment: str, *, kind: str = "reconciled"
) -> Receipt:
    """Take a task object from Scale's API or an export the way a callback with it would be taken."""
    return receive(
        service.engine,
        canonical_json(task),
        environment,
        has_workflow_for=service.has_workflow_for,
        inline_bytes=service.settings.inline_callback_bytes,
        kind=kind,
        tell=event_publisher(service),
    )


def _delivery(connection: Connection, delivery_id: UUID) -> Any:
    found = connection.execute(
        select(Delivery.status, Delivery.reason, Delivery.task_id).where(Delivery.id == delivery_id)
    ).one_or_none()
    if found is None:
        raise LookupError(f"there is no delivery {delivery_id}")
    return found


def _read_again(service: Service, delivery_id: UUID) -> tuple[DeliveryMeta, Callback | InvalidCallback]:
    """A kept delivery, read with the code as it is now, before the transaction that takes it: bodies may be large."""
    columns = (Delivery.id, Delivery.kind, Delivery.environment, Delivery.received_at, Delivery.size_bytes)
    with service.reader.begin() as connection:
        row = connection.execute(select(*columns).where(Delivery.id == delivery_id)).one_or_none()
        if row is None:
            raise LookupError(f"there is no delivery {delivery_id}")
        body = _body(connection, delivery_id, row.size_bytes)
    return DeliveryMeta(row.id, row.kind, row.environment, row.received_at), parse_body(body, row.environment)


def _body(connection: Connection, delivery_id: UUID, size: int) -> bytes:
    """The bytes of a delivery, piece by piece: read as one value they would be in memory six times."""
    body = bytearray()
    while len(body) < size:
        piece = func.substr(Delivery.body, len(body) + 1, CHUNK_BYTES, type_=LargeBinary)
        body += connection.scalars(select(piece).where(Delivery.id == delivery_id)).one()
    return bytes(body)


@contextmanager
def _one_large_body() -> Iterator[None]:
    """A body takes eight times its size while it is read: one at a time a process. Raises Wait while there is another."""
    if not _large_body.acquire(blocking=False):
        raise RetryLater("another large body is being read", LARGE_BODY_RETRY_SECONDS)
    try:
        yield
    finally:
        _large_body.release()


@contextmanager
def _without_collection() -> Iterator[None]:
    """A large body becomes a million objects and no garbage; looking for some again and again takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _take_again(
    connection: Connection,
    service: Service,
    delivery: DeliveryMeta,
    reading: Callback | InvalidCallback,
    *,
    reparse: bool,
) -> Receipt:
    update_delivery(connection, delivery.id, **parsed_columns(delivery, reading))
    if isinstance(reading, Callback) and reading.environment != delivery.environment:
        other = Delivery.__table__.alias()
        doubled = exists().where(
            other.c.environment == reading.environment, other.c.sha256 == Delivery.sha256
        )
        connection.execute(
            update(Delivery)
            .where(Delivery.id == delivery.id, ~doubled)
            .values(environment=reading.environment)
        )
    return apply_or_quarantine(connection, delivery, reading, service.has_workflow_for, reparse=reparse)


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
