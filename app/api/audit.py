"""The audit log: what people decided, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields
from sqlalchemy import select

from app.api.blueprint import Blueprint, service
from app.api.lists import ListQuery, OutputSchema, Record, Timestamp, list_schema, paginate
from models import AuditEntry as Row

blueprint = Blueprint("audit", "What people decided, newest first")


class AuditEntry(OutputSchema):
    at = Timestamp()
    actor = fields.String(metadata={"description": "The name of the token, or of the person at a terminal"})
    action = fields.String(metadata={"description": "follow-up.approve, delivery.replay, workflow.pause …"})
    subject = fields.String(metadata={"description": "The id or name of what it was done to"})
    details = fields.Dict(allow_none=True)


class AuditQuery(ListQuery):
    actor = fields.String()
    action = fields.String()
    subject = fields.String()


@blueprint.get("/audit")
@blueprint.arguments(AuditQuery, location="query")
@blueprint.response(200, list_schema(AuditEntry))
def list_audit(query: Mapping[str, Any]) -> Record:
    """Decisions, newest first"""
    statement = select(Row.id, Row.at, Row.actor, Row.action, Row.subject, Row.details)
    for name in ("actor", "action", "subject"):
        if name in query:
            statement = statement.where(getattr(Row, name) == query[name])
    with service().reader.begin() as connection:
        return paginate(connection, statement, [Row.id], query)
