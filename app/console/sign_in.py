"""Sign in with an API token, or with the one-time link that `make run` prints; sign out."""

from __future__ import annotations

from flask import redirect, request, url_for
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint, page

TITLE = "Sign in"


@blueprint.get("/sign-in")
def sign_in() -> Response:
    """Show the form, or follow a one-time link."""
    if (once := request.args.get("once")) is not None:
        if session.start_once(once):
            return redirect(url_for("console.overview"))
        return _form("This link was used already or has expired. Sign in with a token.", 401)
    return _form()


@blueprint.post("/sign-in")
def send_token() -> Response:
    """Start a session."""
    session.csrf.protect()
    if session.start(request.form.get("token", "").strip()) is None:
        return _form("This token is unknown or revoked, or is bound to projects and opens the API only.", 401)
    return redirect(session.local_path(request.args.get("next", "")))


@blueprint.post("/sign-out")
def sign_out() -> Response:
    """End the session."""
    session.csrf.protect()
    session.end()
    return redirect(url_for("console.sign_in"))


def _form(problem: str | None = None, status: int = 200) -> Response:
    return page("sign_in.html", TITLE, status=status, problem=problem, next_path=request.args.get("next"))
