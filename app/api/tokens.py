"""Authentication of the API: API_TOKEN, with every scope, or a token of the table. GET needs `read`, the rest `operate`."""

from __future__ import annotations

import hmac

from flask import g, request
from prometheus_client import Counter

from app.api.problems import ProblemError
from app.extensions import service, token_failures
from app.failure_limiter import MAX_FAILURES, WINDOW_SECONDS, record_failure
from pipeline.access.projects import PROJECTS, project_of
from pipeline.access.tokens import OPERATE, READ, SCOPES, Holder, holder

PROJECT_LISTS = frozenset({"tasks.list_tasks", "batches.list_batches", "deliveries.list_deliveries"})
"""Lists for a token that is bound to projects, with ?project= or ?task_id=."""
PROJECT_CALLS = frozenset(
    {
        "tasks.get_task",
        "responses.list_responses",
        "responses.list_annotations",
        "responses.get_response",
        "responses.get_response_content",
        "responses.diff_responses",
        "deliveries.get_delivery",
        "deliveries.get_delivery_body",
        "deliveries.replay_delivery",
        "deliveries.dismiss_delivery",
        "artifacts.get_artifact",
        "artifacts.get_artifact_content",
        "artifacts.retry_artifact",
        "follow-ups.get_follow_up",
        "follow-ups.approve_follow_up",
        "follow-ups.cancel_follow_up",
        "follow-ups.replan_follow_up",
        "follow-ups.retry_follow_up",
    }
)
"""Calls about one task, delivery, file or follow-up, whose project is looked up by its id."""
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
    if known.projects:
        check_project(known.projects)
    g.actor, g.scopes = known.name, known.scopes


def check_project(projects: frozenset[str]) -> None:
    """Raise ProblemError unless this request concerns one of the projects that its token is bound to.

    Everything that is not named in PROJECT_CALLS is refused, also what shows whole chains, which may cross projects.
    """
    values = dict(request.view_args or {})
    if request.endpoint in PROJECT_LISTS:
        given = {name: request.args.getlist(name) for name in ("project", "task_id") if name in request.args}
        if len(given) != 1 or any(len(one) != 1 for one in given.values()):
            names = ", ".join(sorted(projects))
            raise ProblemError(403, f"This token is bound to projects; add one as ?project=: {names}.")
        values = {name: one[0] for name, one in given.items()}
    elif request.endpoint not in PROJECT_CALLS:
        raise ProblemError(403, "This token is bound to projects, and this call is not limited to one.")
    if "project" in values:
        found: str | None = values["project"]
    else:
        name = next(name for name in PROJECTS if name in values)
        with service().reader.begin() as connection:
            found = project_of(connection, name, values[name])
    if found not in projects:
        rejections.labels("project").inc()
        raise ProblemError(404, "This token sees nothing of that name: it is bound to other projects.")


def require_scope(scope: str) -> None:
    """Raise ProblemError (403) unless the token of this request has the scope."""
    if scope not in g.scopes:
        rejections.labels("scope").inc()
        raise ProblemError(403, f"This call needs a token with the scope {scope}.")


def reject_token() -> None:
    """Count and log a request without a valid token. Raises ProblemError (429) after too many from one address."""
    rejections.labels("token").inc()
    if record_failure(token_failures(), "API token") > MAX_FAILURES:
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
