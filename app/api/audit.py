"""The audit log: decisions of people and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import fields

from app.api.blueprint import Blueprint
from app.api.fields import Timestamp
from app.api.lists import ListQuery, OutputSchema, list_body, list_schema, paging
from app.extensions import service
from pipeline.operations.queries import Record
from pipeline.operations.queries.audit import list_audit_entries

blueprint = Blueprint("audit", "Decisions of people and tokens.")


class AuditEntry(OutputSchema):
    """One decision of a person or a token."""

    at = Timestamp()
    actor = fields.String(metadata={"description": "Name of the token, or of the user of a command."})
    action = fields.String(
        metadata={"description": "Action, such as follow-up.approve, delivery.replay or workflow.pause."}
    )
    subject = fields.String(metadata={"description": "Id or name of the target of the action."})
    details = fields.Dict(allow_none=True)


class AuditQuery(ListQuery):
    """Filters of the audit log."""

    actor = fields.String()
    action = fields.String()
    subject = fields.String()
    since = Timestamp(metadata={"description": "Earliest time of the decision."})


@blueprint.get("/audit")
@blueprint.arguments(AuditQuery, location="query")
@blueprint.response(200, list_schema(AuditEntry))
def list_audit(query: Mapping[str, Any]) -> Record:
    """List decisions, newest first"""
    with service().reader.begin() as connection:
        return list_body(list_audit_entries(connection, query, **paging(query)))
