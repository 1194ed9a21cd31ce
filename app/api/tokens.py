"""Authentication of the API: API_TOKEN, with every scope, or a token of the table. GET needs `read`, the rest `operate`."""

from __future__ import annotations

import hmac
import logging

from flask import g, request
from prometheus_client import Counter

from app.api.problems import ProblemError
from app.extensions import service, token_failures
from app.failure_limiter import MAX_FAILURES, WINDOW_SECONDS
from pipeline.access.tokens import OPERATE, READ, SCOPES, Holder, holder

log = logging.getLogger(__name__)
rejections = Counter("weighbridge_api_rejections", "Rejected API requests by reason", ["reason"])


def authenticate() -> None:
    """Check the bearer token before every request of the API. Raises ProblemError."""
    if "\0" in request.path:
        raise ProblemError(404, "The path contains a NUL character; no stored id does.")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    known = find_holder(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
    if known is None:
        reject_token()
        raise ProblemError(
            401,
            "Send `Authorization: Bearer TOKEN` with API_TOKEN or a token from `weighbridge tokens create`.",
            WWW_Authenticate='Bearer realm="weighbridge"',
        )
    needed = READ if request.method in ("GET", "HEAD", "OPTIONS") else OPERATE
    if needed not in known.scopes:
        rejections.labels("scope").inc()
        scopes = ", ".join(sorted(known.scopes)) or "none"
        raise ProblemError(
            403,
            f"{request.method} needs a token with the scope {needed}; this token's scopes: {scopes}.",
            WWW_Authenticate=f'Bearer realm="weighbridge", error="insufficient_scope", scope="{needed}"',
        )
    g.actor, g.scopes = known.name, known.scopes


def require_scope(scope: str) -> None:
    """Raise ProblemError (403) unless the token of this request has the scope."""
    if scope not in g.scopes:
        rejections.labels("scope").inc()
        raise ProblemError(403, f"This call needs a token with the scope {scope}.")


def reject_token() -> None:
    """Count and log a request without a valid token. Raises ProblemError (429) after too many from one address."""
    rejections.labels("token").inc()
    address = request.remote_addr or "unknown"
    number = token_failures().record(address)
    if number & (number - 1) == 0:  # the 1st, 2nd, 4th … failure, so that guessing does not fill the log
        log.warning(
            "API token rejected", extra={"address": address, "path": request.path, "failures": number}
        )
    if number > MAX_FAILURES:
        raise ProblemError(
            429,
            "Too many requests without a valid token from this address; try again later.",
            Retry_After=str(int(WINDOW_SECONDS)),
        )


def find_holder(token: str) -> Holder | None:
    """Return the holder of a token. API_TOKEN is compared in constant time, the others are found by their digest."""
    first = service().settings.api_token
    if first and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), first.encode()):
        return Holder("API_TOKEN", frozenset(SCOPES))
    with service().reader.begin() as connection:
        return holder(connection, token)
