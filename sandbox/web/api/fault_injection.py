"""Inject faults into API calls: error answers, silence and resets, before or after the call is processed."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, g, jsonify, request

from sandbox.engine import callbacks
from sandbox.errors import ScaleError
from sandbox.web.api.request_context import current_account, current_sandbox
from sandbox.web.bodies import read_object

CUT = "sandbox.cut"
_ERROR_TEXTS = {
    401: "Your API key does not correspond to a registered user.",
    402: "Not enabled - Please contact Scale before creating this type of task.",
    429: "Too Many Requests - Too many requests hit the API too quickly.",
    500: "Internal Server Error - We had a problem with our server. Try again later.",
}


def inject_before() -> Response | tuple[Response, int, dict[str, str]] | None:
    """Answer a call with a fault that prevents its processing, or return None."""
    g.faults = {}
    if not request.path.startswith(("/v1/", "/v2/")) or not current_sandbox().faults.rules():
        return None
    g.faults = faults = current_sandbox().faults.inject("call", _call_subject())
    if "throttled" in faults:
        seconds = faults["throttled"]["retry_after"]
        return jsonify(status_code=429, error=_ERROR_TEXTS[429]), 429, {"Retry-After": str(seconds)}
    if "refused" in faults:
        return _error_response(faults["refused"]["status"])
    if "error_before" in faults:
        return _error_response(500)
    if "hang" in faults or "reset" in faults:
        return _cut_connection(faults.get("hang"))
    return None


def inject_after(response: Response) -> Response:
    """Replace the answer of a processed call if a fault says so."""
    faults: dict[str, Any] = g.get("faults", {})
    if "error_after" in faults:
        answer, status, _headers = _error_response(500)
        answer.status_code = status
        return answer
    if "hang_after" in faults or "reset_after" in faults:
        return _cut_connection(faults.get("hang_after"))
    return response


def install(app: Flask) -> None:
    """Add the injection after each call to an application."""
    app.after_request(inject_after)
    app.wsgi_app = _CutConnectionMiddleware(app.wsgi_app)  # type: ignore[method-assign]


def _call_subject() -> dict[str, Any]:
    """Return the fields of the call that a fault rule can match."""
    parts = request.path.split("/")
    creates = request.method == "POST" and len(parts) == 4 and parts[2] == "task"
    subject: dict[str, Any] = {
        "account": current_account(),
        "method": request.method,
        "path": request.path,
        "creates": creates,
        "task_id": parts[3] if len(parts) > 3 and parts[2] == "task" and not creates else None,
    }
    if creates:
        try:
            body = read_object(request)
        except ScaleError:
            body = {}
        subject |= {"type": parts[3], **{name: body.get(name) for name in ("unique_id", "project", "batch")}}
    return subject


def _error_response(status: int) -> tuple[Response, int, dict[str, str]]:
    return jsonify(status_code=status, error=_ERROR_TEXTS.get(status, "The request was refused.")), status, {}


def _cut_connection(hang: dict[str, Any] | None) -> Response:
    """End the connection without an answer: after a time, or at once with a reset."""
    request.environ[CUT] = "close" if hang else "reset"
    if hang:
        time.sleep(hang["seconds"])
    return Response(status=500)


class _CutConnectionMiddleware:
    """Close the connection instead of answering, if a fault asked for it."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        """Wrap a WSGI application."""
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Call the application, then answer or cut the connection."""
        answer = self._app(environ, start_response)
        if CUT not in environ:
            return answer
        connection = environ.get("werkzeug.socket")
        if environ[CUT] == "reset" and connection is not None:
            callbacks.reset_on_close(connection)
        raise ConnectionResetError("The sandbox closed this connection because of an injected fault.")
