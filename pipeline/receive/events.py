"""Publish the events of a received delivery to subscribers, in the transaction that stores it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping, select

from models import FollowUp, Response
from pipeline.db.errors import safe_message
from pipeline.db.tables import TASKS
from pipeline.events.outbox import publish, publish_follow_ups
from pipeline.events.subscriptions import (
    DELIVERY,
    FOLLOW_UP,
    RESPONSE,
    TASK,
    About,
    Subscriptions,
    has_filter,
    has_subscriber,
)
from pipeline.receive.rows import DeliveryMeta, Parsed
from scale.envelope import Callback

log = logging.getLogger(__name__)

TASK_EVENT_FIELDS = (
    "task_id", "type", "status", "environment", "project", "batch", "unique_id", "tags", "metadata", "review_status",
    "created_at", "updated_at", "completed_at",
)  # fmt: skip


class DeliveryEvents:
    """Publishes the events of deliveries. Without a subscriber to any of them it does nothing."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions
        groups = (DELIVERY, TASK, RESPONSE, FOLLOW_UP)
        self.has_subscribers = any(has_subscriber(subscriptions, group) for group in groups)

    def publish(self, connection: Connection, delivery: DeliveryMeta, callback: Parsed) -> list[UUID]:
        """Insert a notification of each event for each of its subscribers. Return the jobs that deliver them.

        Never raises, because a subscription must not stand in the way of a callback: what fails is rolled back and logged.
        """
        if not self.has_subscribers:
            return []
        try:
            with connection.begin_nested():
                return self._publish(connection, delivery, callback)
        except Exception as fault:
            log.error(
                "could not publish events",
                extra={**delivery.log_fields(callback), "error": safe_message(fault)},
                exc_info=True,
            )
            return []

    def _publish(self, connection: Connection, delivery: DeliveryMeta, callback: Parsed) -> list[UUID]:
        subscriptions, key = self._subscriptions, str(delivery.id)
        task = None
        if isinstance(callback, Callback) and callback.task_id is not None:
            task = _read_task(connection, callback.task_id)
        about = {} if task is None else _about(connection, subscriptions, task)
        event = f"{DELIVERY}.received"
        job_ids = publish(connection, subscriptions, event, key, {}, about=about, delivery_id=delivery.id)
        if task is None or not isinstance(callback, Callback):  # about no task, or quarantined
            return job_ids
        data = _task_event_data(task, delivery, callback)
        job_ids += publish(connection, subscriptions, f"{TASK}.{callback.event}", key, data, about=about)
        if (response := _read_new_response(connection, delivery, task["task_id"])) is not None:
            job_ids += publish(connection, subscriptions, f"{RESPONSE}.received", key, response, about=about)
        if task["follow_up_unique_id"] is not None:
            job_ids += publish_follow_ups(connection, subscriptions, [task["follow_up_unique_id"]])
        return job_ids


def _task_event_data(task: Mapping[Any, Any], delivery: DeliveryMeta, callback: Callback) -> dict[str, Any]:
    return {name: task[name] for name in TASK_EVENT_FIELDS} | {
        "follow_up": task["follow_up_unique_id"],
        "event": callback.event,
        "delivery_id": delivery.id,
    }


def _about(connection: Connection, subscriptions: Subscriptions, task: RowMapping) -> About:
    """Return the task's project, and the workflow and step that created it if a subscriber filters by them."""
    about = {"project": (task["project"],)}
    if task["follow_up_unique_id"] is None or not has_filter(subscriptions, "workflow", "step"):
        return about
    columns = (FollowUp.workflow, FollowUp.step)
    of_task = FollowUp.unique_id == task["follow_up_unique_id"]
    row = connection.execute(select(*columns).where(of_task)).one()
    return {**about, "workflow": (row.workflow,), "step": (row.step,)}


def _read_task(connection: Connection, task_id: str) -> RowMapping | None:
    return connection.execute(select(TASKS).where(TASKS.c.task_id == task_id)).mappings().one_or_none()


def _read_new_response(connection: Connection, delivery: DeliveryMeta, task_id: str) -> RowMapping | None:
    columns = (Response.task_id, Response.number, Response.error, Response.answer, Response.annotation_count)
    new = select(*columns).where(
        Response.task_id == task_id,
        Response.delivery_id == delivery.id,
        Response.received_at == delivery.received_at,
    )
    return connection.execute(new).mappings().one_or_none()
