"""API tokens: create one, shown once, and revoke them."""

from __future__ import annotations

from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import service
from pipeline.access import tokens as registry
from pipeline.access.tokens import ADMIN
from pipeline.operations.queries.tokens import list_tokens

MAX_NAME_LENGTH = 100


@blueprint.get("/tokens")
def tokens() -> Response:
    """List tokens with their scopes, never the tokens themselves."""
    return _page()


@blueprint.post("/tokens")
def create_token() -> Response:
    """Create a token and show it, this once."""
    session.require_role(ADMIN)
    name = request.form.get("name", "").strip()
    projects = [project for one in request.form.get("projects", "").split(",") if (project := one.strip())]
    scopes = request.form.getlist("scope") or list(registry.SCOPES)
    if not name or len(name) > MAX_NAME_LENGTH or "\0" in name:
        abort(400, f"A token needs a name of at most {MAX_NAME_LENGTH} characters.")
    try:
        with service().engine.begin() as connection:
            token = registry.issue(connection, name, scopes, actor=session.actor(), projects=projects)
    except ValueError as error:
        abort(400, str(error))
    return _page(new=(name, token))


@blueprint.post("/tokens/revoke")
def revoke_token() -> Response:
    """Revoke every token of a name. Their sessions end with them."""
    session.require_role(ADMIN)
    name = request.form.get("name", "")
    with service().engine.begin() as connection:
        revoked = registry.revoke(connection, name, actor=session.actor())
    flash(f"Revoked {revoked} tokens called {name}.")
    return redirect(url_for("console.tokens"))


def _page(new: tuple[str, str] | None = None) -> Response:
    with service().reader.begin() as connection:
        rows = list_tokens(connection)
    if (
        new is None
        and (answer := download(("name", "scopes", "projects", "created_at", "revoked_at"), rows)) is not None
    ):
        return answer
    return page("tokens.html", "Tokens", rows=rows, new=new, scopes=registry.SCOPES)
