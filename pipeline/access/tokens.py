"""Tokens of the REST API: shown once when they are issued, stored as digests, looked up for each request."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from models import ApiToken
from pipeline.access.audit import log_action
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, utcnow

SCOPES = READ, WRITE = ("read", "write")


@dataclass(frozen=True, slots=True)
class Holder:
    """The name and the scopes of a token."""

    name: str
    scopes: frozenset[str]


def digest(token: str) -> str:
    """Return the stored form of a token: SHA-256, hex. A token has 256 random bits, so no slower hash is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def issue(connection: Connection, name: str, scopes: Sequence[str] = SCOPES, *, actor: str) -> str:
    """Store a new token for `name` and return it; it cannot be read again. Raises ValueError for an unknown scope."""
    if not scopes or (unknown := set(scopes) - set(SCOPES)):
        raise ValueError(
            f"scopes are {', '.join(SCOPES)}, not {', '.join(sorted(unknown)) if scopes else 'none'}"
        )
    token = f"wb_{secrets.token_urlsafe(32)}"
    connection.execute(
        insert(connection, ApiToken).values(
            id=new_id(), name=name, digest=digest(token), scopes=sorted(set(scopes)), created_at=utcnow()
        )
    )
    log_action(connection, actor, "token.create", name, {"scopes": sorted(set(scopes))})
    return token


def revoke(connection: Connection, name: str, *, actor: str) -> int:
    """Revoke every token of that name. Return how many were active."""
    statement = update(ApiToken).where(ApiToken.name == name, ApiToken.revoked_at.is_(None))
    revoked = connection.execute(statement.values(revoked_at=utcnow())).rowcount
    if revoked:
        log_action(connection, actor, "token.revoke", name)
    return revoked


def holder(connection: Connection, token: str) -> Holder | None:
    """Return the holder of a token; None for one that was never issued or is revoked."""
    found = connection.execute(
        select(ApiToken.name, ApiToken.scopes).where(
            ApiToken.digest == digest(token), ApiToken.revoked_at.is_(None)
        )
    ).one_or_none()
    return Holder(found.name, frozenset(found.scopes)) if found else None
