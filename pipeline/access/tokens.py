"""Tokens of the REST API: shown once when they are issued, stored as digests, looked up for each request."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, or_, select, update

from models import ApiToken
from pipeline.access.audit import log_action
from pipeline.db.dialect import insert
from pipeline.db.ids import format_timestamp, new_id, utcnow

SCOPES = READ, OPERATE, ADMIN = ("read", "operate", "admin")
"""read: see everything. operate: approve, replay, retry, pause, submit. admin: create and revoke tokens."""
ALIASES = {"write": OPERATE}
"""Earlier names of scopes, which stored tokens and scripts may still have."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The name, the scopes and the projects of a token; without projects it is bound to none."""

    name: str
    scopes: frozenset[str]
    projects: frozenset[str] = frozenset()


def digest(token: str) -> str:
    """Return the stored form of a token: SHA-256, hex. A token has 256 random bits, so no slower hash is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def issue(
    connection: Connection,
    name: str,
    scopes: Sequence[str] = SCOPES,
    *,
    actor: str,
    expires_at: datetime | None = None,
    projects: Sequence[str] = (),
) -> str:
    """Store a new token for `name` and return it; it cannot be read again. Raises ValueError for an unknown scope.

    With `projects` it is bound to them.
    """
    scopes = [ALIASES.get(scope, scope) for scope in scopes]
    if not scopes or (unknown := set(scopes) - set(SCOPES)):
        raise ValueError(
            f"scopes are {', '.join(SCOPES)}, not {', '.join(sorted(unknown)) if scopes else 'none'}"
        )
    token = f"wb_{secrets.token_urlsafe(32)}"
    connection.execute(
        insert(connection, ApiToken).values(
            id=new_id(),
            name=name,
            digest=digest(token),
            scopes=sorted(set(scopes)),
            projects=sorted(set(projects)) or None,
            created_at=utcnow(),
            expires_at=expires_at,
        )
    )
    details = {
        "scopes": sorted(set(scopes)),
        "projects": sorted(set(projects)),
        "expires_at": expires_at and format_timestamp(expires_at),
    }
    log_action(connection, actor, "token.create", name, details)
    return token


def rotate(
    connection: Connection, name: str, *, actor: str, overlap: timedelta, expires_at: datetime | None = None
) -> str:
    """Issue another token for `name` with the scopes and projects of its newest valid one, and let the others expire after `overlap`.

    Raises LookupError if no token of that name is valid.
    """
    valid = (ApiToken.name == name, *_valid())
    newest = select(ApiToken.scopes, ApiToken.projects).where(*valid).order_by(ApiToken.id.desc()).limit(1)
    found = connection.execute(newest).one_or_none()
    if found is None:
        raise LookupError(f"no valid token is called {name}")
    end = utcnow() + overlap
    later = or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > end)
    connection.execute(update(ApiToken).where(*valid, later).values(expires_at=end))
    token = issue(
        connection, name, found.scopes, actor=actor, expires_at=expires_at, projects=found.projects or ()
    )
    log_action(connection, actor, "token.rotate", name, {"others_expire_at": format_timestamp(end)})
    return token


def _valid() -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of a token that opens something."""
    unexpired = or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > utcnow())
    return (ApiToken.revoked_at.is_(None), unexpired)


def revoke(connection: Connection, name: str, *, actor: str) -> int:
    """Revoke every token of that name. Return how many were active."""
    statement = update(ApiToken).where(ApiToken.name == name, ApiToken.revoked_at.is_(None))
    revoked = connection.execute(statement.values(revoked_at=utcnow())).rowcount
    if revoked:
        log_action(connection, actor, "token.revoke", name)
    return revoked


def holder(connection: Connection, token: str) -> Holder | None:
    """Return the holder of a token; None for one that was never issued, is revoked or has expired."""
    return holder_of_digest(connection, digest(token))


def holder_of_digest(connection: Connection, token_digest: str) -> Holder | None:
    """Return the holder of the token with this digest, as `holder` does."""
    columns = (ApiToken.name, ApiToken.scopes, ApiToken.projects)
    statement = select(*columns).where(ApiToken.digest == token_digest, *_valid())
    found = connection.execute(statement).one_or_none()
    if found is None:
        return None
    scopes = frozenset(ALIASES.get(one, one) for one in found.scopes)
    return Holder(found.name, scopes, frozenset(found.projects or ()))


LINK_NAME, LINK_SCOPE = "one-time link", "sign-in"
LINK_MAX_AGE = timedelta(days=1)


def issue_link(connection: Connection) -> str:
    """Store a token that signs one person in to the console, once and within a day; it opens nothing else."""
    token = secrets.token_urlsafe(24)
    values = {"id": new_id(), "name": LINK_NAME, "digest": digest(token), "created_at": utcnow()}
    connection.execute(insert(connection, ApiToken).values(**values, scopes=[LINK_SCOPE]))
    return token


def consume_link(connection: Connection, token: str) -> bool:
    """Use up the token of a one-time link. Return whether it was still valid."""
    statement = update(ApiToken).where(
        ApiToken.digest == digest(token),
        ApiToken.revoked_at.is_(None),
        ApiToken.name == LINK_NAME,
        ApiToken.created_at > utcnow() - LINK_MAX_AGE,
    )
    return connection.execute(statement.values(revoked_at=utcnow())).rowcount == 1
