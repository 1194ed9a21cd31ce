"""Deliveries: every POST as it came, what became of it, and taking it once more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from flask import Response
from marshmallow import fields
from marshmallow.validate import OneOf
from sqlalchemy import ColumnElement, select, text

from app.api.artifacts import SAFE_HEADERS
from app.api.blueprint import Blueprint, actor, dispatcher, service
from app.api.lists import ListQuery, OutputSchema, Record, Timestamp, list_schema, paginate
from app.api.problems import ProblemError
from models import Delivery as Row
from pipeline.access.audit import log_action
from pipeline.receive import replay
from pipeline.receive.receive import DatabaseBusy
from pipeline.receive.replay import Replay

blueprint = Blueprint("deliveries", "Callbacks as they were received, newest first")

STATUSES = ("stored", "processed", "quarantined")


class Delivery(OutputSchema):
    id = fields.UUID()
    received_at = Timestamp()
    status = fields.String(validate=OneOf(STATUSES))
    reason = fields.String(allow_none=True, metadata={"description": "Why it is in quarantine"})
    event = fields.String(allow_none=True)
    task_id = fields.String(allow_none=True)
    environment = fields.String(validate=OneOf(("live", "test")))
    size_bytes = fields.Integer()
    duplicates = fields.Integer(metadata={"description": "How often the same bytes came again"})
    kind = fields.String(validate=OneOf(("callback", "reconciled", "imported")))
    clock = Timestamp(allow_none=True, metadata={"description": "When it happened, by Scale's dates"})
    last_received_at = Timestamp()
    sha256 = fields.String()
    warnings = fields.List(
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


class Replayed(OutputSchema):
    delivery_id = fields.UUID()
    status = fields.String(allow_none=True, validate=OneOf(STATUSES))
    before = fields.Dict(allow_none=True)
    after = fields.Dict(allow_none=True)
    changed = fields.Dict(allow_none=True, metadata={"description": "name → [before, after]"})


COLUMNS = tuple(getattr(Row, name) for name in Delivery._declared_fields)
DETAIL = tuple(getattr(Row, name) for name in DeliveryDetail._declared_fields)


@blueprint.get("/deliveries")
@blueprint.arguments(DeliveryQuery, location="query")
@blueprint.response(200, list_schema(Delivery))
def list_deliveries(query: Mapping[str, Any]) -> Record:
    """Deliveries, newest first"""
    with service().reader.begin() as connection:
        return paginate(connection, select(*COLUMNS).where(*_chosen(query)), [Row.id], query)


def _chosen(query: Mapping[str, Any]) -> Iterator[ColumnElement[bool]]:
    for name in ("status", "task_id", "environment", "event", "kind"):
        if name in query:
            yield getattr(Row, name) == query[name]
    if query.get("status", "processed") != "processed":
        yield text("deliveries.status != 'processed'")  # type: ignore[misc]  # the words of the partial index


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
def replay_delivery(delivery_id: UUID) -> Record:
    """Take the kept bytes the same way once more, with the code as it is now; nothing is created twice"""
    _row(delivery_id, Row.id)
    try:
        replayed = replay.replay(service(), delivery_id)
    except DatabaseBusy:
        raise ProblemError(503, "the task's row is in use; try again", Retry_After="5") from None
    with service().engine.begin() as connection:
        log_action(
            connection, actor(), "delivery.replay", str(delivery_id), {"status": replayed.receipt.status}
        )
    dispatcher().dispatch(replayed.receipt.jobs)
    return _replayed(delivery_id, replayed)


@blueprint.post("/deliveries/replay")
@blueprint.arguments(DeliveryQuery, location="query")
@blueprint.response(200, list_schema(Replayed))
def replay_deliveries(query: Mapping[str, Any]) -> Record:
    """Take all deliveries that the parameters choose once more, oldest first, `limit` at a time

    Go on with `cursor` until `next_cursor` is null. `changed` is null where a task was in use for too long: replay that
    delivery again.
    """
    conditions = list(_chosen(query))
    if not conditions:
        raise ProblemError(400, "choose deliveries by at least one parameter, such as status=quarantined")
    try:
        after = UUID(query["cursor"]) if "cursor" in query else None
    except ValueError:
        raise ProblemError(400, "cursor is none that this list gave") from None
    replays = replay.replay_many(service(), *conditions, after=after)
    done: list[Record] = []
    for delivery_id, replayed in islice(replays, query["limit"]):
        if isinstance(replayed, DatabaseBusy):
            done.append(
                {"delivery_id": delivery_id, "status": None, "before": None, "after": None, "changed": None}
            )
            continue
        with service().engine.begin() as connection:
            log_action(
                connection, actor(), "delivery.replay", str(delivery_id), {"status": replayed.receipt.status}
            )
        dispatcher().dispatch(replayed.receipt.jobs)
        done.append(_replayed(delivery_id, replayed))
    whole = len(done) == query["limit"]
    return {"data": done, "next_cursor": str(done[-1]["delivery_id"]) if whole else None}


def _replayed(delivery_id: UUID, replay: Replay) -> Record:
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
        raise ProblemError(
            404, f"no delivery {delivery_id} is known; GET /api/v1/deliveries lists those that are"
        )
    return row
