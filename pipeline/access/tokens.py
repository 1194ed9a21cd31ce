"""Tokens of the REST API: shown once when they are issued, kept as digests, looked up for each request that brings one."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from models import ApiToken
from pipeline.db.dialect import insert
from pipeline.db.ids import new_id, utcnow

SCOPES = READ, WRITE = ("read", "write")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who brings a token, and what it lets them do."""

    name: str
    scopes: frozenset[str]


def digest(token: str) -> str:
    """What is kept of a token: sha256, hex. A token has 256 random bits, so nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def issue(connection: Connection, name: str, scopes: Sequence[str] = SCOPES) -> str:
    """A new token for `name`. It is returned here and never again. Raises ValueError for a scope that there is not."""
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
    return token


def revoke(connection: Connection, name: str) -> int:
    """Every token of that name ends now; how many did."""
    statement = update(ApiToken).where(ApiToken.name == name, ApiToken.revoked_at.is_(None))
    return connection.execute(statement.values(revoked_at=utcnow())).rowcount


def holder(connection: Connection, token: str) -> Holder | None:
    """Who holds this token; None for one that was never issued or is revoked."""
    found = connection.execute(
        select(ApiToken.name, ApiToken.scopes).where(
            ApiToken.digest == digest(token), ApiToken.revoked_at.is_(None)
        )
    ).one_or_none()
    return Holder(found.name, frozenset(found.scopes)) if found else None
