"""Read deliveries: every callback as it was received."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, LargeBinary, bindparam, func, literal, select, text

from models import Delivery, DeliveryBody
from pipeline.db import bodies
from pipeline.db.dialect import byte_position
from pipeline.db.ids import first_id_at, utcnow
from pipeline.db.sizes import read_row
from pipeline.operations.queries.filters import Filters, Gone, NotFound, equal
from pipeline.operations.queries.paging import DEFAULT_LIMIT, Page, count_up_to, paginate

STATUSES = ("stored", "processed", "quarantined")
KINDS = ("callback", "reconciled", "imported", "input")
MAX_SEARCHED = 500
MAX_SEARCHED_BYTES = 256 * 1024
"""A search of bodies reads at most 128 MB, and a few megabytes of usual ones."""
COLUMNS = (
    Delivery.id,
    Delivery.received_at,
    Delivery.status,
    Delivery.reason,
    Delivery.event,
    Delivery.task_id,
    Delivery.environment,
    Delivery.size_bytes,
    Delivery.duplicates,
    Delivery.kind,
    Delivery.clock,
    Delivery.last_received_at,
    Delivery.sha256,
    Delivery.warnings,
    Delivery.dismissed_at,
    Delivery.purged_at,
)


def conditions(filters: Filters) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of `filters`: status, task_id, environment, event, kind, reason, since (received then or later),
    dismissed (False: without those), and search (bytes of the body, in the newest deliveries)."""
    found = list(_filter_conditions(filters))
    yield from found
    if (search := filters.get("search")) is not None:
        yield _body_contains(search, found)


def _filter_conditions(filters: Filters) -> Iterator[ColumnElement[bool]]:
    yield from equal(Delivery, ("status", "task_id", "environment", "event", "kind", "reason"), filters)
    if filters.get("status") not in (None, "processed"):
        # The partial index has exactly this condition.
        yield text("deliveries.status != 'processed'")  # type: ignore[misc]
    if (since := filters.get("since")) is not None:
        yield Delivery.received_at >= since
    if filters.get("dismissed") is False:
        yield Delivery.dismissed_at.is_(None)


def _body_contains(search: str, conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
    """Match the text in the bodies of the MAX_SEARCHED newest deliveries of `conditions`, without those over MAX_SEARCHED_BYTES.

    The limit is inside of the subquery: PostgreSQL would read every body of the table before it looks at a condition.
    """
    columns = (Delivery.id, Delivery.size_bytes)
    newest = select(*columns).where(*conditions).order_by(Delivery.id.desc()).limit(MAX_SEARCHED).subquery()
    wanted = literal(search.encode(errors="surrogateescape"), LargeBinary)
    found = (
        select(newest.c.id)
        .join(DeliveryBody, DeliveryBody.delivery_id == newest.c.id)
        .where(newest.c.size_bytes <= MAX_SEARCHED_BYTES, byte_position(DeliveryBody.body, wanted) > 0)
    )
    return Delivery.id.in_(found)


def list_deliveries(
    connection: Connection, filters: Filters, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
) -> Page:
    """Return deliveries, newest first."""
    statement = select(*COLUMNS).where(*conditions(filters))
    return paginate(connection, statement, [Delivery.id], limit=limit, cursor=cursor)


def count_deliveries(connection: Connection, filters: Filters) -> int:
    """Return how many deliveries match, counted up to MAX_COUNTED."""
    return count_up_to(connection, select(Delivery.id).where(*conditions(filters)))


def deliveries_after(
    connection: Connection, filters: Filters, after: UUID | None, limit: int
) -> list[Mapping[str, Any]]:
    """Return deliveries received after the delivery `after`, oldest first."""
    statement = select(*COLUMNS).where(*conditions(filters))
    if after is not None:
        statement = statement.where(Delivery.id > after)
    rows = connection.execute(statement.order_by(Delivery.id).limit(limit)).mappings()
    return [dict(row) for row in rows]


def latest_id(connection: Connection) -> UUID | None:
    """Return the id of the newest delivery; None if there is none."""
    return connection.scalar(select(Delivery.id).order_by(Delivery.id.desc()).limit(1))


def get_delivery(connection: Connection, delivery_id: UUID) -> Mapping[str, Any]:
    """Return one delivery with its headers and review, without its body. Raises NotFound."""
    row = read_row(connection, _DETAIL, id=delivery_id)
    if row is None:
        raise _not_found(delivery_id)
    return row


_DETAIL = select(*COLUMNS, Delivery.headers, Delivery.review).where(Delivery.id == bindparam("id"))


def stream_body(reader: Engine, delivery_id: UUID, start: int = 0) -> Iterator[bytes]:
    """Return the bytes of a delivery from `start` on, in chunks. Raises NotFound, Gone if they were purged, and BodyMissing.

    The first chunk is read at once: what is raised later is a fault, such as a purge meanwhile.
    """
    with reader.begin() as connection:
        purged_at = _get(connection, delivery_id, Delivery.purged_at)["purged_at"]
    if purged_at is not None:
        raise Gone(f"the body of delivery {delivery_id} was purged on {purged_at:%Y-%m-%d}")
    chunks = bodies.stream_body(reader, delivery_id, start)
    return chain((next(chunks, b""),), chunks)


def _get(connection: Connection, delivery_id: UUID, *columns: Any) -> Mapping[str, Any]:
    row = connection.execute(select(*columns).where(Delivery.id == delivery_id)).mappings().one_or_none()
    if row is None:
        raise _not_found(delivery_id)
    return dict(row)


def _not_found(delivery_id: UUID) -> NotFound:
    return NotFound(f"no delivery {delivery_id} is known")


def quarantine_reasons(connection: Connection, limit: int = 50) -> list[Mapping[str, Any]]:
    """Return {reason, count, since} of quarantined deliveries, the most frequent reason first."""
    count = func.count().label("count")
    statement = (
        select(Delivery.reason, count, func.min(Delivery.received_at).label("since"))
        .where(*conditions({"status": "quarantined", "dismissed": False}))
        .group_by(Delivery.reason)
        .order_by(count.desc(), Delivery.reason)
    )
    return [dict(row) for row in connection.execute(statement.limit(limit)).mappings()]


def received_by_hour(connection: Connection, hours: int = 24) -> list[tuple[datetime, int]]:
    """Return (start of the hour in UTC, deliveries received in it) for the last hours, oldest first.

    A delivery's id begins with its time of receipt, so each hour is a range of the primary key.
    """
    now = utcnow().replace(minute=0, second=0, microsecond=0)
    starts = [now - timedelta(hours=back) for back in range(hours - 1, -1, -1)]
    columns = [
        func.count()
        .filter(Delivery.id >= first_id_at(start), Delivery.id < first_id_at(start + timedelta(hours=1)))
        .label(f"hour_{number}")
        for number, start in enumerate(starts)
    ]
    row = connection.execute(select(*columns).where(Delivery.id >= first_id_at(starts[0]))).one()
    return list(zip(starts, row, strict=True))
