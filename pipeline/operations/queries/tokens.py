"""Read the API tokens: names and scopes, never the tokens themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from models import ApiToken

COLUMNS = (
    ApiToken.name,
    ApiToken.scopes,
    ApiToken.projects,
    ApiToken.created_at,
    ApiToken.expires_at,
    ApiToken.revoked_at,
)


def list_tokens(connection: Connection) -> list[Mapping[str, Any]]:
    """Return every token, newest first."""
    rows = connection.execute(select(*COLUMNS).order_by(ApiToken.id.desc())).mappings()
    return [dict(row) for row in rows]
