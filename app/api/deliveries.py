"""Deliveries: every POST as it came, what became of it, and taking it once more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response
from marshmallow import fields
from marshmallow.validate import OneOf
from sqlalchemy import select, text

from app.api.artifacts import SAFE_HEADERS
from app.api.blueprint import Blueprint, bell, service, who
from app.api.lists import Instant, ListQuery, Rows, Shown, listed, page
from app.api.problems import Refused
from models import Delivery as Row
from pipeline import deliveries
from pipeline.audit import note
from pipeline.receive import Busy

blueprint = Blueprint("deliveries", "Callbacks as they were received, newest first")

STATUSES = ("stored", "processed", "quarantined")


class Delivery(Shown):
    id = fields.UUID()
    received_at = Instant()
    status = fields.String(validate=OneOf(STATUSES))
    reason = fields.String(allow_none=True, metadata={"description": "Why it is in quarantine"})
    event = fields.String(allow_none=True)
    task_id = fields.String(allow_none=True)
    environment = fields.String(validate=OneOf(("live", "test")))
    size_bytes = fields.Integer()
    duplicates = fields.Integer(metadata={"description": "How often the same bytes came again"})
    kind = fields.String(validate=OneOf(("callback", "reconciled", "imported")))
    clock = Instant(allow_none=True, metadata={"description": "When it happened, by Scale's dates"})
    last_received_at = Instant()
    sha256 = fields.String()
    flags = fields.List(
        fields.Raw(), allow_none=True, metadata={"description": "What was odd about the envelope"}
    )


class DeliveryDetail(Delivery):
    headers = fields.Dict()
    review = fields.Dict(allow_none=True)


class DeliveryQuery(ListQuery):
    status = fields.String(validate=OneOf(STATUSES))
    task_id = fields.String()
    environment = fields.String(validate=OneOf(("live", "test")))
    event = fields.String()
    kind = fields.String(validate=OneOf(("callback", "reconciled", "imported")))


class Replayed(Shown):
    delivery_id = fields.UUID()
    status = fields.String(validate=OneOf(STATUSES))
    before = fields.Dict()
    after = fields.Dict()
    changed = fields.Dict(metadata={"description": "name → [before, after]"})


COLUMNS = tuple(getattr(Row, name) for name in Delivery._declared_fields)
DETAIL = tuple(getattr(Row, name) for name in DeliveryDetail._declared_fields)


@blueprint.get("/deliveries")
@blueprint.arguments(DeliveryQuery, location="query")
@blueprint.response(200, listed(Delivery))
def list_deliveries(query: Mapping[str, Any]) -> Rows:
    """Deliveries, newest first"""
    statement = select(*COLUMNS)
    for name in ("status", "task_id", "environment", "event", "kind"):
        if name in query:
            statement = statement.where(getattr(Row, name) == query[name])
    if query.get("status", "processed") != "processed":
        statement = statement.where(
            text("deliveries.status != 'processed'")
        )  # the words of the partial index
    with service().reader.begin() as connection:
        return page(connection, statement, [Row.id], query)


@blueprint.get("/deliveries/<uuid:delivery_id>")
@blueprint.response(200, DeliveryDetail)
def show_delivery(delivery_id: UUID) -> Any:
    """One delivery"""
    return _row(delivery_id, *DETAIL)


@blueprint.get("/deliveries/<uuid:delivery_id>/body")
@blueprint.response(
    200,
    {"type": "string", "format": "binary"},
    content_type="application/octet-stream",
    description="The bytes as they came",
)
def delivery_body(delivery_id: UUID) -> Response:
    """The bytes of a delivery"""
    body = _row(delivery_id, Row.body)["body"]
    response = Response(body, headers=SAFE_HEADERS, mimetype="application/octet-stream")
    response.headers.set("Content-Disposition", "attachment", filename=f"{delivery_id}.json")
    return response


@blueprint.post("/deliveries/<uuid:delivery_id>/replay")
@blueprint.response(200, Replayed)
def replay_delivery(delivery_id: UUID) -> Rows:
    """Take the kept bytes the same way once more, with the code as it is now; nothing is created twice"""
    _row(delivery_id, Row.id)
    try:
        replay = deliveries.replay(service(), delivery_id)
    except Busy:
        raise Refused(503, "the task's row is in use; try again", Retry_After="5") from None
    with service().engine.begin() as connection:
        note(connection, who(), "delivery.replay", str(delivery_id), {"status": replay.receipt.status})
    bell().ring(replay.receipt.jobs)
    return {
        "delivery_id": delivery_id,
        "status": replay.receipt.status,
        "before": replay.before,
        "after": replay.after,
        "changed": replay.changed,
    }


def _row(delivery_id: UUID, *columns: Any) -> Any:
    with service().reader.begin() as connection:
        row = connection.execute(select(*columns).where(Row.id == delivery_id)).mappings().one_or_none()
    if row is None:
        raise Refused(404, f"no delivery {delivery_id} is known; GET /api/v1/deliveries lists those that are")
    return row
