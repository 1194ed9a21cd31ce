"""What every screen shares: the blueprint, navigation, response headers, error pages and the filters of templates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any
from urllib.parse import urlencode

import orjson
from flask import Blueprint, Response, g, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from markupsafe import Markup
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from app.api.problems import RETRY_AFTER, ProblemError
from app.console import session
from app.memory_limits import BUSY, TOO_LARGE
from pipeline.db.ids import format_timestamp, utcnow
from pipeline.db.memory_budget import ReadersBusy, ReadTooLarge
from pipeline.follow_ups.decisions import InvalidTransition
from pipeline.operations.queries import Gone, InvalidCursor, NotFound

blueprint = Blueprint("console", __name__, url_prefix="/console", template_folder=".", static_folder="static")

NAVIGATION = (
    ("overview", "Overview"),
    ("tasks", "Tasks"),
    ("deliveries", "Deliveries"),
    ("quarantine", "Quarantine"),
    ("jobs", "Jobs"),
    ("follow_ups", "Follow-ups"),
    ("workflows", "Workflows"),
    ("datasets", "Datasets"),
    ("exports", "Exports"),
    ("batches", "Batches"),
    ("projects", "Projects"),
    ("insights", "Insights"),
    ("bulk_actions_list", "Bulk actions"),
    ("settings", "Settings"),
    ("tokens", "Tokens"),
    ("subscribers", "Subscribers"),
    ("audit", "Audit log"),
)
"""Endpoint and title of each screen in the navigation."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
QUERY = re.compile(r"(https?://[^\s\"'<>?#]+)\?[^\s\"'<>]*")
"""An address with a query."""
MINUTE, HOUR, DAY = 60, 3600, 86400


def page(template: str, title: str, *, status: int = 200, **context: Any) -> Response:
    """Render a screen: its template within the frame."""
    rendered = render_template(template, title=title, navigation=NAVIGATION, **context)
    return make_response(rendered, status)


def live_part(template: str, **context: Any) -> Response:
    """Render a part of a screen that refreshes itself; 304 while it is what the browser has."""
    rendered = render_template(template, **context)
    tag = session.digest(rendered)
    if request.headers.get("HX-PTag") == tag:
        return make_response("", 304)
    response = make_response(rendered)
    response.headers["HX-PTag"] = tag
    return response


@blueprint.before_request
def _require_session() -> AnyResponse | None:
    return session.require()


@blueprint.after_request
def _add_headers(response: Response) -> Response:
    if request.endpoint == "console.static":
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


# Errors are pages in the frame.


def error_page(status: int, title: str, message: str) -> Response:
    """Render an error with what to do about it."""
    return page("error.html", title, status=status, message=message)


@blueprint.errorhandler(NotFound)
def _not_found(error: NotFound) -> Response:
    return error_page(404, "Not found", f"{sentence(str(error))}.")


@blueprint.errorhandler(Gone)
def _gone(error: Gone) -> Response:
    return error_page(410, "Purged", f"{sentence(str(error))}. Its digest and counts stay.")


@blueprint.errorhandler(InvalidCursor)
def _invalid_cursor(error: InvalidCursor) -> Response:
    return error_page(400, "Invalid page", str(error))


@blueprint.errorhandler(ReadTooLarge)
def _read_too_large(error: ReadTooLarge) -> Response:
    return error_page(409, "Too large", TOO_LARGE)


@blueprint.errorhandler(ReadersBusy)
def _readers_busy(error: ReadersBusy) -> Response:
    response = error_page(503, "Busy", BUSY)
    response.headers["Retry-After"] = RETRY_AFTER
    return response


@blueprint.errorhandler(InvalidTransition)
def _invalid_transition(error: InvalidTransition) -> Response:
    return error_page(409, "Not possible now", str(error))


@blueprint.errorhandler(ProblemError)
def _problem(error: ProblemError) -> Response:
    response = error_page(
        error.status, "Too many requests" if error.status == 429 else "Not possible", error.detail
    )
    response.headers.update(error.headers)
    return response


@blueprint.errorhandler(CSRFError)
def _csrf_error(error: CSRFError) -> Response:
    return error_page(
        400, "Form expired", "Nothing was changed. Go back, reload the page and send the form again."
    )


@blueprint.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> Response:
    return error_page(error.code or 500, error.name, error.description or error.name)


@blueprint.route("/<path:unknown>")
def unknown(unknown: str) -> Response:
    """Answer an address below /console/ that no screen has."""
    return error_page(
        404, "Not found", f"There is no page /console/{unknown}. The navigation shows every screen."
    )


# Filters and globals of templates.


@blueprint.app_template_filter("time")
def show_time(moment: datetime | None) -> Markup | str:
    """Render a timestamp relative to now, with the exact one in UTC as its title."""
    if moment is None:
        return ""
    exact = format_timestamp(moment)
    relative = _relative((utcnow() - moment.astimezone(UTC)).total_seconds())
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(exact, relative)


def _relative(seconds: float) -> str:
    suffix, seconds = ("ago", seconds) if seconds >= 0 else ("from now", -seconds)
    for unit, length in (("d", DAY), ("h", HOUR), ("min", MINUTE)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} {suffix}"
    return f"{seconds:.0f} s {suffix}"


@blueprint.app_template_filter("state")
def show_state(state: str | None) -> Markup | str:
    """Render a state as a word with its color; the word alone carries the meaning."""
    if state is None:
        return ""
    return Markup('<span class="state state-{}">{}</span>').format(state, state)


@blueprint.app_template_filter("json")
def show_json(value: Any) -> str:
    """Return a value as indented JSON text; the template escapes it."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(value, option=options, default=str).decode(errors="replace")


@blueprint.app_template_filter("unsigned")
def without_signature(text: str) -> str:
    """Return a text without the query of the addresses in it: that of a presigned address gives access to a file."""
    return QUERY.sub(r"\1?…", text) if "://" in text else text


@blueprint.app_template_filter("commands")
def show_commands(text: str) -> Markup:
    """Render a sentence whose commands stand between backticks."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


@blueprint.app_template_filter("without")
def without(chosen: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return filters without some of them."""
    return {name: value for name, value in chosen.items() if name not in names}


@blueprint.app_template_filter("stem")
def show_stem(path: str) -> str:
    """Return the name of a file without its folder and suffix."""
    return PurePath(path).stem


@blueprint.app_template_filter("sentence")
def sentence(text: str) -> str:
    """Return a text with its first letter as that of a sentence."""
    return f"{text[:1].upper()}{text[1:]}"


@blueprint.app_template_filter("short")
def shorten(text: str, length: int = 300) -> str:
    """Return the beginning of a text, so that a page of rows has a bounded size."""
    return text if len(text) <= length else f"{text[:length]}…"


@blueprint.app_template_filter("size")
def show_size(size: int | None) -> str:
    """Render a number of bytes."""
    if size is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size = round(size / 1000)
    return f"{size} GB"


@blueprint.context_processor
def _context() -> dict[str, Any]:
    return {"user": g.get("user"), "may": session.may, "url_with": url_with, "section": _section()}


def _section() -> str | None:
    """Return the endpoint of the screen that the present page belongs to, by the first part of its address."""
    first = request.path.removeprefix("/console/").partition("/")[0]
    endpoint = {"": "overview", "bulk-actions": "bulk_actions_list"}.get(first, first.replace("-", "_"))
    return endpoint if endpoint in dict(NAVIGATION) else None


def url_with(**changes: str | None) -> str:
    """Return the current address with some query parameters changed; None removes one."""
    kept = {name: value for name, value in request.args.items() if value and name not in changes}
    query = urlencode({**kept, **{name: value for name, value in changes.items() if value is not None}})
    return f"{request.path}?{query}" if query else request.path
