"""Deliveries: every callback as it was received, and its replay."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from flask import Response
from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf

from app.api.blueprint import Blueprint, actor
from app.api.fields import Timestamp, environment_field
from app.api.lists import ListQuery, OutputSchema, list_body, list_schema, paging
from app.api.problems import ProblemError
from app.extensions import dispatcher, service
from app.responses import CONTENT_HEADERS
from pipeline.operations import dismissals
from pipeline.operations.queries import InvalidCursor, Record
from pipeline.operations.queries import deliveries as queries
from pipeline.receive import replay
from pipeline.receive.receive import DatabaseBusy
from pipeline.receive.replay import BodyPurged, Replay

blueprint = Blueprint("deliveries", "Callbacks as they were received.")


class Delivery(OutputSchema):
    """A delivery as lists show it."""

    id = fields.UUID()
    received_at = Timestamp()
    status = fields.String(validate=OneOf(queries.STATUSES))
    reason = fields.String(allow_none=True, metadata={"description": "Why the delivery is quarantined."})
    event = fields.String(allow_none=True)
    task_id = fields.String(allow_none=True)
    environment = environment_field()
    size_bytes = fields.Integer()
    duplicates = fields.Integer(
        metadata={"description": "Number of later deliveries with exactly the same bytes."}
    )
    kind = fields.String(validate=OneOf(queries.KINDS))
    clock = Timestamp(allow_none=True, metadata={"description": "Time of the event, by Scale's dates."})
    last_received_at = Timestamp()
    dismissed_at = Timestamp(
        allow_none=True, metadata={"description": "Time at which a quarantined delivery was dismissed."}
    )
    purged_at = Timestamp(
        allow_none=True,
        metadata={
            "description": "Time at which the body was purged: its download answers 410, and a replay is refused."
        },
    )
    sha256 = fields.String()
    warnings = fields.List(
        fields.Raw(), allow_none=True, metadata={"description": "Human-readable parse warnings."}
    )


class Dismissal(Schema):
    """The body of a dismissal."""

    reason = fields.String(
        required=True, validate=Length(1, 500), metadata={"description": "Why, for the audit log."}
    )


class DeliveryDetail(Delivery):
    """A delivery with its headers."""

    headers = fields.Dict()
    review = fields.Dict(allow_none=True)


class DeliveryQuery(ListQuery):
    """Filters of the list of deliveries."""

    status = fields.String(validate=OneOf(queries.STATUSES))
    task_id = fields.String()
    environment = environment_field()
    event = fields.String()
    kind = fields.String(validate=OneOf(queries.KINDS))


class ReplayResult(OutputSchema):
    """What a replay changed. `before` and `after` hold the same names."""

    delivery_id = fields.UUID()
    status = fields.String(allow_none=True, validate=OneOf(queries.STATUSES))
    before = fields.Dict(allow_none=True)
    after = fields.Dict(allow_none=True)
    changed = fields.Dict(
        allow_none=True, metadata={"description": "Changed fields: name → [before, after]."}
    )


@blueprint.get("/deliveries")
@blueprint.arguments(DeliveryQuery, location="query")
@blueprint.response(200, list_schema(Delivery))
def list_deliveries(query: Mapping[str, Any]) -> Record:
    """List deliveries, newest first"""
    with service().reader.begin() as connection:
        return list_body(queries.list_deliveries(connection, query, **paging(query)))


@blueprint.get("/deliveries/<uuid:delivery_id>")
@blueprint.response(200, DeliveryDetail)
def get_delivery(delivery_id: UUID) -> Mapping[str, Any]:
    """Get one delivery"""
    with service().reader.begin() as connection:
        return queries.get_delivery(connection, delivery_id)


@blueprint.get("/deliveries/<uuid:delivery_id>/body")
@blueprint.response(
    200,
    {"type": "string", "format": "binary"},
    content_type="application/octet-stream",
    description="The bytes as they were received.",
)
def get_delivery_body(delivery_id: UUID) -> Response:
    """Download the body of a delivery"""
    with service().reader.begin() as connection:
        size = queries.get_delivery(connection, delivery_id)["size_bytes"]
    chunks = queries.stream_body(service().reader, delivery_id)
    response = Response(chunks, headers=CONTENT_HEADERS, mimetype="application/octet-stream")
    response.content_length = size
    response.headers.set("Content-Disposition", "attachment", filename=f"{delivery_id}.json")
    return response


@blueprint.post("/deliveries/<uuid:delivery_id>/replay")
@blueprint.response(200, ReplayResult)
def replay_delivery(delivery_id: UUID) -> Record:
    """Apply a stored delivery again with the current code; nothing is created twice"""
    with service().reader.begin() as connection:
        queries.get_delivery(connection, delivery_id)
    try:
        replayed = replay.replay(service(), delivery_id, actor())
    except DatabaseBusy:
        raise ProblemError(503, "The task is locked; send the request again.", Retry_After="5") from None
    except BodyPurged as error:
        raise ProblemError(409, f"{error}.") from None
    return _finished(delivery_id, replayed)


@blueprint.post("/deliveries/<uuid:delivery_id>/dismiss")
@blueprint.arguments(Dismissal)
@blueprint.response(200, DeliveryDetail)
def dismiss_delivery(dismissal: Mapping[str, Any], delivery_id: UUID) -> Mapping[str, Any]:
    """Dismiss a quarantined delivery: it stays stored, and health checks do not count it any more"""
    with service().engine.begin() as connection:
        dismissals.dismiss_delivery(connection, delivery_id, actor(), dismissal["reason"])
        return queries.get_delivery(connection, delivery_id)


@blueprint.post("/deliveries/replay")
@blueprint.arguments(DeliveryQuery, location="query")
@blueprint.response(200, list_schema(ReplayResult))
def replay_deliveries(query: Mapping[str, Any]) -> Record:
    """Apply all matching deliveries again, oldest first, `limit` in each request

    Continue with `cursor` until `next_cursor` is null. `changed` is null for a delivery whose task was locked for too
    long: replay that delivery again. What was purged is left out.
    """
    conditions = list(queries.conditions(query))
    if not conditions:
        raise ProblemError(400, "Pass at least one filter, such as status=quarantined.")
    try:
        after = UUID(query["cursor"]) if "cursor" in query else None
    except ValueError:
        raise InvalidCursor from None
    replays = replay.replay_many(service(), actor(), *conditions, after=after)
    results = [
        _locked(delivery_id) if isinstance(replayed, DatabaseBusy) else _finished(delivery_id, replayed)
        for delivery_id, replayed in islice(replays, query["limit"])
    ]
    is_full = len(results) == query["limit"]
    return {"data": results, "next_cursor": str(results[-1]["delivery_id"]) if is_full else None}


def _finished(delivery_id: UUID, replayed: Replay) -> Record:
    """Dispatch the jobs of a replay and return its result."""
    dispatcher().dispatch(replayed.receipt.jobs)
    return {
        "delivery_id": delivery_id,
        "status": replayed.receipt.status,
        "before": replayed.before,
        "after": replayed.after,
        "changed": replayed.changed,
    }


def _locked(delivery_id: UUID) -> Record:
    return {"delivery_id": delivery_id, "status": None, "before": None, "after": None, "changed": None}
