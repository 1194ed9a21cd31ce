"""Months of bodies that a purge by age has passed: dropped if nothing of them is left, or else emptied row by row.

What is left to do shows in the rows alone, so that a purge that was killed, or found the table locked, is finished by the next.
"""

from __future__ import annotations

import logging
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, exists, select, text
from sqlalchemy.exc import DBAPIError

from models import Delivery, DeliveryBody
from pipeline.db.dialect import limit_lock_waits
from pipeline.db.errors import is_transient, safe_message
from pipeline.db.months import Month, drop_month, existing
from pipeline.retention.selection import Selection
from pipeline.service import Service

log = logging.getLogger(__name__)

BODY_BATCH_SIZE = 5_000


def whole_months(connection: Connection, selection: Selection) -> frozenset[Month]:
    """Return the months that the selection covers from the first to the last delivery. Only age selects so."""
    if selection.before is None or selection != Selection(
        selection.classes, selection.before, force=selection.force
    ):
        return frozenset()
    return frozenset(month for month in existing(connection) if month.end <= selection.before)


def finish(service: Service, month: Month) -> None:
    """Drop a month whose bodies are all purged. While others are left, delete those that are purged."""
    if _is_over(service, month):
        _drop(service, month)
    else:
        delete_purged(service, month.has(DeliveryBody.delivery_id))


def delete_purged(service: Service, condition: ColumnElement[bool]) -> None:
    """Delete the bodies of purged deliveries that meet the condition, in batches."""
    purged = (
        select(DeliveryBody.delivery_id)
        .join(Delivery, Delivery.id == DeliveryBody.delivery_id)
        .where(condition, Delivery.purged_at.is_not(None))
        .order_by(DeliveryBody.delivery_id)
        .limit(BODY_BATCH_SIZE)
    )
    after = UUID(int=0)
    while True:
        with service.engine.begin() as connection:
            ids = connection.scalars(purged.where(DeliveryBody.delivery_id > after)).all()
            connection.execute(delete(DeliveryBody).where(DeliveryBody.delivery_id.in_(ids)))
        if len(ids) < BODY_BATCH_SIZE:
            return
        after = ids[-1]


def _is_over(service: Service, month: Month) -> bool:
    """Return whether every body of the month is purged."""
    kept = exists().where(
        Delivery.id == DeliveryBody.delivery_id,
        month.has(DeliveryBody.delivery_id),
        Delivery.purged_at.is_(None),
    )
    with service.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # it may look at every body of the month
        return not connection.scalar(select(kept))


def _drop(service: Service, month: Month) -> None:
    try:
        with service.engine.begin() as connection:
            limit_lock_waits(connection)
            drop_month(connection, month)
    except DBAPIError as fault:
        if not is_transient(fault):
            raise
        log.info("month not dropped yet", extra={"table": month.partition, "error": safe_message(fault)})
    else:
        log.info("month of bodies dropped", extra={"table": month.partition})
