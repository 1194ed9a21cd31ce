"""Deliveries that are parsed after they were answered: large ones, replayed ones, and tasks requested from Scale."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, exists, select, update

from models import Delivery, Response, Task
from pipeline.access.audit import log_action
from pipeline.db.bodies import read_body
from pipeline.db.engine import close_on_return
from pipeline.db.errors import safe_message
from pipeline.db.ids import new_id, utcnow
from pipeline.jobs import queue, scale_limits
from pipeline.jobs.queue import Job, RetryLater
from pipeline.jobs.rate_limits import check_rate_limit
from pipeline.receive import rows
from pipeline.receive.events import DeliveryEvents
from pipeline.receive.receive import DatabaseBusy, Receipt, apply_or_quarantine, parse_body, receive
from pipeline.receive.rows import DeliveryMeta
from pipeline.service import Service
from scale.canonical import canonical_json
from scale.client import PermanentError
from scale.envelope import Callback, InvalidCallback

log = logging.getLogger(__name__)


class BodyPurged(LookupError):
    """Raised when the bytes of a delivery were purged, or the content of its task: it cannot be applied again."""


MISSING_KEY_RETRY_SECONDS = 900.0
IDS_BATCH_SIZE = 500
LARGE_BODY_RETRY_SECONDS = 0.5
_large_body = threading.Lock()


@dataclass(frozen=True, slots=True)
class Replay:
    """The outcome of a replay: the state of the delivery and its task before and after, and the jobs to dispatch."""

    receipt: Receipt
    before: dict[str, Any]
    after: dict[str, Any]

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """Return what the replay changed: name → (before, after)."""
        return {
            name: (self.before[name], now) for name, now in self.after.items() if self.before[name] != now
        }


def parse_delivery(service: Service, job: Job) -> None:
    """Run a job of kind `parse`: parse a delivery that was only stored, and apply it."""
    lease = queue.keep_lease(service.engine, job, service.settings.lease_seconds)
    with lease, _one_large_body(), _without_garbage_collection():
        try:
            delivery, callback = _parse_stored(service, UUID(job.subject))
        except BodyPurged:  # it was applied before: a body that waits is never purged
            with service.engine.begin() as connection:
                return queue.finish(connection, job)
        events = DeliveryEvents(service.subscriptions)
        with service.engine.begin() as connection:
            close_on_return(connection)
            if _read_delivery(connection, delivery.id).status == "stored":
                _apply_again(connection, service, delivery, callback, reparse=False)
                events.publish(connection, delivery, callback)
            queue.finish(connection, job)
    log.debug("delivery parsed", extra={**job.log_fields, **delivery.log_fields(callback)})


def replay(service: Service, delivery_id: UUID, actor: str) -> Replay:
    """Apply a stored delivery once more, with the current code, and audit it. Nothing is created twice.

    Raises LookupError if there is no such delivery, BodyPurged if it or its task was purged, and DatabaseBusy if its task is
    locked for too long.
    """
    delivery, callback = _parse_stored(service, delivery_id)
    with service.engine.begin() as connection:
        _refuse_purged_task(connection, delivery_id)
        before = _snapshot(connection, delivery_id)
        receipt = _apply_again(connection, service, delivery, callback, reparse=True)
        if isinstance(callback, Callback) and callback.task_id is not None:
            rows.update_task(connection, callback.task_id, {"replayed_at": utcnow()})
        log_action(connection, actor, "delivery.replay", str(delivery_id), {"status": receipt.status})
        return Replay(receipt, before, _snapshot(connection, delivery_id))


def preview_replay(service: Service, delivery_id: UUID) -> Replay:
    """Return what a replay would change. It is done and rolled back. Raises as replay() does."""
    delivery, callback = _parse_stored(service, delivery_id)
    with service.engine.connect() as connection:
        _refuse_purged_task(connection, delivery_id)
        before = _snapshot(connection, delivery_id)
        receipt = _apply_again(connection, service, delivery, callback, reparse=True)
        after = _snapshot(connection, delivery_id)
        connection.rollback()
    return Replay(receipt, before, after)


def replay_many(
    service: Service, actor: str, *conditions: ColumnElement[bool], after: UUID | None = None
) -> Iterator[tuple[UUID, Replay | DatabaseBusy]]:
    """Replay each delivery that meets all `conditions` in a transaction of its own. Yields DatabaseBusy for a locked task.

    What was purged is left out.
    """
    for delivery_id in iter_ids(service, *conditions, after=after):
        try:
            yield delivery_id, replay(service, delivery_id, actor)
        except BodyPurged:
            continue
        except DatabaseBusy as busy:
            yield delivery_id, busy


def iter_ids(service: Service, *conditions: ColumnElement[bool], after: UUID | None = None) -> Iterator[UUID]:
    """Yield the ids of the deliveries that meet all `conditions` (on columns of Delivery) after `after`, oldest first.

    Reads page by page: rows that stop matching are skipped, rows received later are ignored, and so are purged bodies.
    """
    newest = new_id()
    while True:
        known = (*conditions, Delivery.purged_at.is_(None), Delivery.id < newest)
        matching = select(Delivery.id).where(*known).order_by(Delivery.id)
        if after is not None:
            matching = matching.where(Delivery.id > after)
        with service.reader.begin() as connection:
            page = connection.scalars(matching.limit(IDS_BATCH_SIZE)).all()
        yield from page
        if len(page) < IDS_BATCH_SIZE:
            return
        after = page[-1]


def describe_task(service: Service, job: Job) -> None:
    """Run a job of kind `describe`: request a task without a description from Scale, and receive it as a delivery."""
    with service.reader.begin() as connection:
        task = connection.execute(
            select(Task.environment, Task.type).where(Task.task_id == job.subject)
        ).one_or_none()
        if task is not None and task.type is None:
            check_rate_limit(connection, scale_limits.scope(task.environment))
    if task is not None and task.type is None:
        client = service.client(task.environment)
        if client is None:
            raise RetryLater(f"no API key for {task.environment} tasks is set", MISSING_KEY_RETRY_SECONDS)
        try:
            with scale_limits.respect_limits(service.engine, task.environment):
                description = client.get_task(job.subject)
            receive_task(service, description, task.environment)
        except PermanentError as fault:
            log.warning(
                "task stays without description", extra={**job.log_fields, "error": safe_message(fault)}
            )
    with service.engine.begin() as connection:
        queue.finish(connection, job)


def receive_task(
    service: Service,
    task: Mapping[str, Any],
    key_environment: str,
    *,
    kind: str = "reconciled",
    may_create: bool = True,
) -> Receipt:
    """Receive a task object from Scale's API or an export the way a callback with it would be received."""
    return receive(service, canonical_json(task), key_environment, kind=kind, may_create=may_create)


def _read_delivery(connection: Connection, delivery_id: UUID) -> Any:
    row = connection.execute(
        select(Delivery.status, Delivery.reason, Delivery.task_id).where(Delivery.id == delivery_id)
    ).one_or_none()
    if row is None:
        raise LookupError(f"there is no delivery {delivery_id}")
    return row


def _parse_stored(service: Service, delivery_id: UUID) -> tuple[DeliveryMeta, Callback | InvalidCallback]:
    """Parse a stored delivery with the current code, before the transaction that applies it: bodies may be large."""
    columns = (Delivery.id, Delivery.kind, Delivery.environment, Delivery.received_at, Delivery.purged_at)
    with service.reader.begin() as connection:
        body = read_body(connection, delivery_id)
        row = connection.execute(select(*columns).where(Delivery.id == delivery_id)).one_or_none()
    if row is None:
        raise LookupError(f"there is no delivery {delivery_id}")
    if body is None:
        raise BodyPurged(
            f"the body of delivery {delivery_id} was purged on {row.purged_at:%Y-%m-%d}; nothing is left to replay"
        )
    delivery = DeliveryMeta(row.id, row.kind, row.environment, row.received_at)
    return delivery, parse_body(body, row.environment, row.id)


def _refuse_purged_task(connection: Connection, delivery_id: UUID) -> None:
    of_task = select(Task.task_id, Task.purged_at).join(Delivery, Delivery.task_id == Task.task_id)
    task = connection.execute(
        of_task.where(Delivery.id == delivery_id, Task.purged_at.is_not(None))
    ).one_or_none()
    if task is not None:
        raise BodyPurged(
            f"task {task.task_id} was purged on {task.purged_at:%Y-%m-%d}; a replay would not bring its content back"
        )


@contextmanager
def _one_large_body() -> Iterator[None]:
    """Allow one large body at a time in this process, because parsing takes eight times its size. Raises RetryLater."""
    if not _large_body.acquire(blocking=False):
        raise RetryLater("another large body is being parsed", LARGE_BODY_RETRY_SECONDS)
    try:
        yield
    finally:
        _large_body.release()


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector: a large body becomes a million objects and no garbage, and it would take half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _apply_again(
    connection: Connection,
    service: Service,
    delivery: DeliveryMeta,
    callback: Callback | InvalidCallback,
    *,
    reparse: bool,
) -> Receipt:
    rows.update_delivery(connection, delivery.id, **rows.parsed_columns(delivery, callback))
    if isinstance(callback, Callback) and callback.environment != delivery.key_environment:
        _move_to_environment(connection, delivery.id, callback.environment)
    return apply_or_quarantine(connection, delivery, callback, service.has_workflow_for, reparse=reparse)


def _move_to_environment(connection: Connection, delivery_id: UUID, environment: str) -> None:
    """Set the environment that the body states, unless the same bytes are stored there already."""
    other = Delivery.__table__.alias()
    is_duplicate = exists().where(other.c.environment == environment, other.c.sha256 == Delivery.sha256)
    connection.execute(
        update(Delivery).where(Delivery.id == delivery_id, ~is_duplicate).values(environment=environment)
    )


def _snapshot(connection: Connection, delivery_id: UUID) -> dict[str, Any]:
    """Return what a replay can change, in the form that a person compares."""
    delivery = _read_delivery(connection, delivery_id)
    snapshot: dict[str, Any] = {"delivery": delivery.status, "reason": delivery.reason}
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
    return snapshot | dict(zip(names, task or [None] * len(names), strict=True))
