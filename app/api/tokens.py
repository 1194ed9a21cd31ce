"""Who asks: bearer tokens, API_TOKEN with every scope or one of the table. Reading needs `read`, all else `write`."""

from __future__ import annotations

import hmac

from flask import current_app, g, request

from app.api.problems import ProblemError
from pipeline.access.tokens import READ, SCOPES, WRITE, Holder, holder
from pipeline.service import Service


def authenticate() -> None:
    """Before every request of the API. Raises Refused."""
    if "\0" in request.path:
        raise ProblemError(404, "nothing that is kept has a NUL character in its name")
    service: Service = current_app.extensions["weighbridge"]
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    known = _holder(service, token.strip()) if scheme.lower() == "bearer" and token.strip() else None
    if known is None:
        raise ProblemError(
            401,
            "send `Authorization: Bearer TOKEN`, with API_TOKEN or a token that `flask tokens` made",
            WWW_Authenticate='Bearer realm="weighbridge"',
        )
    needed = READ if request.method in ("GET", "HEAD", "OPTIONS") else WRITE
    if needed not in known.scopes:
        raise ProblemError(
            403,
            f"this token may {' and '.join(sorted(known.scopes)) or 'nothing'}; {request.method} needs one that may {needed}",
            WWW_Authenticate=f'Bearer realm="weighbridge", error="insufficient_scope", scope="{needed}"',
        )
    g.actor = known.name


def _holder(service: Service, token: str) -> Holder | None:
    """API_TOKEN is compared in constant time; the others are found by their digest, which tells nothing of the token."""
    first = service.settings.api_token
    if first and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), first.encode()):
        return Holder("API_TOKEN", frozenset(SCOPES))
    with service.reader.begin() as connection:
        return holder(connection, token)
