"""Authentication of the API: API_TOKEN, with every scope, or a token of the table. GET needs `read`, the rest `operate`."""

from __future__ import annotations

import hmac

from flask import g, request

from app.api.problems import ProblemError
from app.extensions import service
from pipeline.access.tokens import OPERATE, READ, SCOPES, Holder, holder


def authenticate() -> None:
    """Check the bearer token before every request of the API. Raises ProblemError."""
    if "\0" in request.path:
        raise ProblemError(404, "The path contains a NUL character; no stored id does.")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    known = find_holder(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
    if known is None:
        raise ProblemError(
            401,
            "Send `Authorization: Bearer TOKEN` with API_TOKEN or a token from `weighbridge tokens create`.",
            WWW_Authenticate='Bearer realm="weighbridge"',
        )
    needed = READ if request.method in ("GET", "HEAD", "OPTIONS") else OPERATE
    if needed not in known.scopes:
        scopes = ", ".join(sorted(known.scopes)) or "none"
        raise ProblemError(
            403,
            f"{request.method} needs a token with the scope {needed}; this token's scopes: {scopes}.",
            WWW_Authenticate=f'Bearer realm="weighbridge", error="insufficient_scope", scope="{needed}"',
        )
    g.actor = known.name


def find_holder(token: str) -> Holder | None:
    """Return the holder of a token. API_TOKEN is compared in constant time, the others are found by their digest."""
    first = service().settings.api_token
    if first and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), first.encode()):
        return Holder("API_TOKEN", frozenset(SCOPES))
    with service().reader.begin() as connection:
        return holder(connection, token)
