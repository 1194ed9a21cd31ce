"""Signing in to the console with an API token: sessions, roles, CSRF tokens and throttling."""

from __future__ import annotations

import hashlib
import time
from datetime import timedelta
from urllib.parse import urlsplit

from flask import Flask, Request, abort, g, redirect, request, url_for
from flask import session as cookie
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect
from werkzeug.wrappers import Response

from app.api.tokens import find_holder, reject_token
from app.extensions import service
from pipeline.access.tokens import ADMIN, OPERATE, READ, Holder, consume_link, holder_of_digest

LIFETIME = timedelta(hours=12)
MAX_COOKIES = 200
"""More than a browser keeps for a site. They are parsed before the request is authenticated."""
MAX_OPEN_FORM_BYTES = 4096
"""Largest unauthenticated form: it holds a token and a CSRF token."""
OPEN_ENDPOINTS = ("console.static", "console.sign_in", "console.send_token", "console.sign_out")

csrf = CSRFProtect()


class SessionInterface(SecureCookieSessionInterface):
    """Flask's signed cookie, sent over https only where the request came over https. Other paths have no session."""

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the session of a request to the console; None elsewhere, where reading one would delay callbacks.

        It is empty for a request with more than MAX_COOKIES cookies.
        """
        if not request.path.startswith(app.config["SESSION_COOKIE_PATH"]):
            return None
        if request.headers.get("Cookie", "").count(";") > MAX_COOKIES:
            return self.session_class()
        return super().open_session(app, request)

    def get_cookie_secure(self, app: Flask) -> bool:
        """Return whether the request came by HTTPS."""
        return request.is_secure


def configure(app: Flask) -> None:
    """Set up the session cookie and CSRF protection of the console's forms."""
    app.config.update(
        SESSION_COOKIE_NAME="weighbridge_console",
        SESSION_COOKIE_PATH="/console",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=LIFETIME,
        SESSION_REFRESH_EACH_REQUEST=False,
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,
    )
    app.session_interface = SessionInterface()
    csrf.init_app(app)


def digest(text: str) -> str:
    """Return a short digest of a text, to compare it with an earlier one."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def start(token: str) -> Holder | None:
    """Start a session for the holder of a token; None if the token is unknown or revoked.

    A token that is bound to projects opens no session, because the screens show all of them. Raises ProblemError (429)
    after too many wrong tokens from one address.
    """
    known = find_holder(token)
    if known is not None and known.projects:
        return None
    if known is None:
        reject_token()
        return None
    cookie.clear()
    cookie.permanent = True
    cookie["token"] = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    cookie["started"] = int(time.time())
    return known


def end() -> None:
    """End the session."""
    cookie.clear()


def current() -> Holder | None:
    """Return who is signed in; None after 12 hours, and once the token is revoked."""
    stored = cookie.get("token")
    if not isinstance(stored, str) or time.time() - cookie.get("started", 0) > LIFETIME.total_seconds():
        return None
    api_token = service().settings.api_token
    if api_token and stored == hashlib.sha256(api_token.encode()).hexdigest():
        return Holder("API_TOKEN", frozenset((READ, OPERATE, ADMIN)))
    with service().reader.begin() as connection:
        known = holder_of_digest(connection, stored)
    return None if known is not None and known.projects else known


def require() -> Response | None:
    """Lead requests without a session to the sign-in page, and check role and CSRF token of the others."""
    if request.endpoint in OPEN_ENDPOINTS:
        request.max_content_length = MAX_OPEN_FORM_BYTES
        return None
    g.user = current()
    if g.user is None or READ not in g.user.scopes:
        if (
            "HX-Request" in request.headers
        ):  # a live part must not become the sign-in page: lead the whole page there
            return Response("", 401, {"HX-Redirect": url_for("console.sign_in")})
        return redirect(url_for("console.sign_in", next=request.full_path.rstrip("?")))
    if request.method == "POST":
        csrf.protect()
    return None


def may(scope: str) -> bool:
    """Return whether the signed-in person has a role."""
    user = g.get("user")
    return user is not None and scope in user.scopes


def require_role(scope: str) -> None:
    """Abort with 403 unless the signed-in person has a role."""
    if not may(scope):
        abort(403, f"This needs a token with the scope {scope}.")


def actor() -> str:
    """Return the name of the signed-in person's token, for the audit log."""
    name: str = g.user.name
    return name


def local_path(target: str) -> str:
    """Return a path below /console/ to go to after signing in; the overview for anything else."""
    parts = urlsplit(target)
    is_local = not parts.scheme and not parts.netloc and parts.path.startswith("/console/")
    return (
        target if is_local and "\\" not in target and "//" not in parts.path else url_for("console.overview")
    )


def start_once(token: str) -> bool:
    """Start a session for the token of a one-time link. Return whether it was valid and not used before."""
    with service().engine.begin() as connection:
        is_valid = consume_link(connection, token)
    if not is_valid:
        reject_token()
    return is_valid and start(service().settings.api_token or "") is not None
