"""Protect the sandbox from other sites: check Host, Origin and Sec-Fetch-Site, and sign the page's forms.

The page needs no key and the API's default keys are public, so a site in a developer's browser must not reach them: not by
DNS rebinding (Host), not by a form that posts to them (Origin), and not by planting a cookie from another port of the
machine (signed form keys).
"""

import hmac
import secrets
from urllib.parse import urlsplit

from flask import Response, current_app, request

from sandbox.errors import ScaleError

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
UNSAFE_METHODS = ("POST", "PUT", "PATCH", "DELETE")
_SECRET = "sandbox_form_secret"


def check_host(sandbox_url: str) -> None:
    """Raise ScaleError (400) unless the request names a loopback host or the sandbox's own."""
    allowed = (*LOOPBACK_HOSTS, urlsplit(sandbox_url).hostname)
    if urlsplit(f"//{request.host}").hostname not in allowed:
        raise ScaleError(
            400,
            f"Unknown host {request.host!r}. Open the sandbox at {sandbox_url}, or start it with --public-url.",
        )


def check_origin() -> None:
    """Raise ScaleError (403) if a page of another origin sent a request that changes something."""
    if request.method not in UNSAFE_METHODS:
        return
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in ("same-origin", "none") or origin not in (None, request.host_url.rstrip("/")):
        raise ScaleError(403, "This request was sent by another site. Use the sandbox's own page.")


def check_form() -> None:
    """Raise ScaleError (403) unless a form has the key of its session."""
    if request.method not in UNSAFE_METHODS:
        return
    session_id = request.cookies.get(_cookie_name(), "")
    given = request.form.get("form_key", "")
    if not session_id or not hmac.compare_digest(form_key(session_id).encode(), given.encode()):
        raise ScaleError(403, "This form has expired. Load the page again.")


def current_session_id() -> str:
    """Return the session of the request, or a new one."""
    return request.cookies.get(_cookie_name()) or secrets.token_urlsafe(24)


def form_key(session_id: str) -> str:
    """Return the key of the session's forms: only this process can make one."""
    secret = current_app.extensions.setdefault(_SECRET, secrets.token_bytes(32))
    return hmac.new(secret, session_id.encode(), "sha256").hexdigest()


def set_session_cookie(response: Response, session_id: str) -> None:
    """Set the cookie of the session."""
    response.set_cookie(
        _cookie_name(), session_id, httponly=True, samesite="Strict", secure=request.is_secure
    )


def _cookie_name() -> str:
    """Return the name of the cookie; the prefix, which needs https, binds it to this host."""
    return "__Host-sandbox_session" if request.is_secure else "sandbox_session"
