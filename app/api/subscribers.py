"""Subscribers: who is told of what happens here, and what became of each notification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf
from sqlalchemy import Connection, select

from app.api.blueprint import Blueprint, actor, dispatcher, service
from app.api.lists import ListQuery, OutputSchema, Record, Timestamp, list_schema, paginate
from app.api.problems import ProblemError
from models import Notification as NotificationRow
from models import Subscriber as Row
from pipeline.events import outbox, subscriptions
from pipeline.events.subscriptions import EVENTS, InvalidSubscriber

blueprint = Blueprint("subscribers", "Outbound webhooks, signed by the Standard Webhooks scheme")

STATES = ("pending", "delivered", "failed")
HEARS = f"Groups of events, or single ones. {'; '.join(EVENTS.values())}"


class Subscriber(OutputSchema):
    id = fields.UUID()
    url = fields.String()
    events = fields.List(fields.String(), metadata={"description": HEARS})
    headers = fields.List(
        fields.String(), metadata={"description": "Names of what each request carries besides"}
    )
    enabled = fields.Boolean()
    reason = fields.String(
        allow_none=True, metadata={"description": "Why it is disabled, if not by a person"}
    )
    created_at = Timestamp()


class NewSubscriber(Subscriber):
    secret = fields.String(metadata={"description": "Signs what it is sent; shown this once"})


class Registration(Schema):
    url = fields.String(
        required=True,
        validate=Length(1, 2000),
        metadata={"description": "Where to; its host must be named in SUBSCRIBER_HOSTS"},
    )
    events = fields.List(
        fields.String(validate=Length(1, 64)),
        required=True,
        validate=Length(1, 50),
        metadata={"description": HEARS},
    )
    secret = fields.String(
        validate=Length(1, 200), metadata={"description": "`whsec_…` of your own; left out, one is made"}
    )
    headers = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata={
            "description": "Sent with each request, such as `scale-callback-auth` for an older handler"
        },
    )


class Attempt(OutputSchema):
    at = fields.String()
    status = fields.Integer(allow_none=True, metadata={"description": "Of the answer; null: none came"})
    error = fields.String(allow_none=True, metadata={"description": "Null: it was taken"})
    seconds = fields.Float()


class Notification(OutputSchema):
    id = fields.UUID()
    event = fields.String()
    state = fields.String(validate=OneOf(STATES))
    attempts = fields.List(fields.Nested(Attempt), metadata={"description": "The last of them, oldest first"})
    delivery_id = fields.UUID(
        allow_none=True, metadata={"description": "The delivery that is passed on as it came"}
    )
    payload = fields.Dict(allow_none=True, metadata={"description": "The body; null for a delivery"})
    created_at = Timestamp()
    delivered_at = Timestamp(allow_none=True)


class NotificationQuery(ListQuery):
    state = fields.String(validate=OneOf(STATES))
    event = fields.String()


COLUMNS = (Row.id, Row.url, Row.events, Row.headers, Row.enabled, Row.reason, Row.created_at)
NOTIFICATIONS = tuple(getattr(NotificationRow, name) for name in Notification._declared_fields)


@blueprint.get("/subscribers")
@blueprint.arguments(ListQuery, location="query")
@blueprint.response(200, list_schema(Subscriber))
def list_subscribers(query: Mapping[str, Any]) -> Record:
    """Subscribers, the newest first"""
    with service().reader.begin() as connection:
        found = paginate(connection, select(*COLUMNS), [Row.id], query)
    return {**found, "data": [shown(row) for row in found["data"]]}


@blueprint.post("/subscribers")
@blueprint.arguments(Registration)
@blueprint.response(201, NewSubscriber)
def add_subscriber(wanted: Mapping[str, Any]) -> Record:
    """Tell somebody of events from now on"""
    try:
        with service().engine.begin() as connection:
            row = subscriptions.add(connection, service().settings, actor(), **wanted)
    except InvalidSubscriber as unfit:
        raise ProblemError(422, str(unfit)) from None
    return shown(row) | {"secret": row["secret"]}


@blueprint.get("/subscribers/<uuid:subscriber_id>")
@blueprint.response(200, Subscriber)
def show_subscriber(subscriber_id: UUID) -> Record:
    """One subscriber"""
    with service().reader.begin() as connection:
        return find(connection, subscriber_id)


@blueprint.delete("/subscribers/<uuid:subscriber_id>")
@blueprint.response(204)
def remove_subscriber(subscriber_id: UUID) -> None:
    """Forget it, with the history of its notifications"""
    _changed(lambda connection: subscriptions.remove(connection, actor(), subscriber_id))


@blueprint.post("/subscribers/<uuid:subscriber_id>/enable")
@blueprint.response(200, Subscriber)
def enable_subscriber(subscriber_id: UUID) -> Record:
    """Tell it again"""
    _changed(lambda connection: subscriptions.enable(connection, actor(), subscriber_id, True))
    return show(subscriber_id)


@blueprint.post("/subscribers/<uuid:subscriber_id>/disable")
@blueprint.response(200, Subscriber)
def disable_subscriber(subscriber_id: UUID) -> Record:
    """Tell it no more"""
    _changed(lambda connection: subscriptions.enable(connection, actor(), subscriber_id, False))
    return show(subscriber_id)


@blueprint.post("/subscribers/<uuid:subscriber_id>/test")
@blueprint.response(202, Subscriber)
def test_subscriber(subscriber_id: UUID) -> Record:
    """Send it `test.sent`, to see whether that arrives"""
    with service().engine.begin() as connection:
        found = find(connection, subscriber_id)
        job_ids = outbox.send_test(connection, subscriptions.load_subscriptions(connection), subscriber_id)
    if not job_ids:
        raise ProblemError(409, "the subscriber is disabled; POST …/enable first")
    dispatcher().dispatch(job_ids)
    return found


@blueprint.get("/subscribers/<uuid:subscriber_id>/notifications")
@blueprint.arguments(NotificationQuery, location="query")
@blueprint.response(200, list_schema(Notification))
def list_notifications(query: Mapping[str, Any], subscriber_id: UUID) -> Record:
    """What it was told, and what became of each try, the newest first"""
    statement = select(*NOTIFICATIONS).where(NotificationRow.subscriber_id == subscriber_id)
    for name in ("state", "event"):
        if name in query:
            statement = statement.where(getattr(NotificationRow, name) == query[name])
    with service().reader.begin() as connection:
        find(connection, subscriber_id)
        return paginate(connection, statement, [NotificationRow.id], query)


@blueprint.post("/notifications/<uuid:notification_id>/replay")
@blueprint.response(202, Notification)
def replay_notification(notification_id: UUID) -> Any:
    """Send a notification again, under its own id"""
    job_ids = _changed(lambda connection: subscriptions.replay(connection, actor(), notification_id))
    dispatcher().dispatch(job_ids)
    statement = select(*NOTIFICATIONS).where(NotificationRow.id == notification_id)
    with service().reader.begin() as connection:
        return connection.execute(statement).mappings().one()


def _changed(change: Callable[[Connection], Any]) -> Any:
    try:
        with service().engine.begin() as connection:
            return change(connection)
    except LookupError as missing:
        raise ProblemError(404, str(missing.args[0])) from None


def show(subscriber_id: UUID) -> Record:
    with service().reader.begin() as connection:
        return find(connection, subscriber_id)


def find(connection: Connection, subscriber_id: UUID) -> Record:
    row = connection.execute(select(*COLUMNS).where(Row.id == subscriber_id)).mappings().one_or_none()
    if row is None:
        raise ProblemError(404, f"there is no subscriber {subscriber_id}; GET /api/v1/subscribers lists them")
    return shown(row)


def shown(row: Mapping[Any, Any]) -> Record:
    """Without what is secret."""
    return {**row, "headers": sorted(row["headers"] or {})}
