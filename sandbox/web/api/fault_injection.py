"""The API's bad days: what the faults that strike calls look like on the wire."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, g, jsonify, request

from sandbox.engine import callbacks
from sandbox.errors import ScaleError
from sandbox.web.api.calls import account, current_sandbox
from sandbox.web.bodies import read_object

CUT = "sandbox.cut"
_WORDS = {
    401: "Your API key does not correspond to a registered user.",
    402: "Not enabled - Please contact Scale before creating this type of task.",
    429: "Too Many Requests - Too many requests hit the API too quickly.",
    500: "Internal Server Error - We had a problem with our server. Try again later.",
}


def strike_before() -> Response | tuple[Response, int, dict[str, str]] | None:
    """Before a call is looked at: the faults that keep it from being done."""
    g.faults = {}
    if not request.path.startswith(("/v1/", "/v2/")) or not current_sandbox().faults.rules():
        return None
    g.faults = faults = current_sandbox().faults.inject("call", _subject())
    if "throttled" in faults:
        seconds = faults["throttled"]["retry_after"]
        return jsonify(status_code=429, error=_WORDS[429]), 429, {"Retry-After": str(seconds)}
    if "refused" in faults:
        return _words(faults["refused"]["status"])
    if "error_before" in faults:
        return _words(500)
    if "hang" in faults or "reset" in faults:
        return _cut(faults.get("hang"))
    return None


def strike_after(response: Response) -> Response:
    """After a call was done: the faults that keep its answer from arriving."""
    faults: dict[str, Any] = g.get("faults", {})
    if "error_after" in faults:
        answer, status, _headers = _words(500)
        answer.status_code = status
        return answer
    if "hang_after" in faults or "reset_after" in faults:
        return _cut(faults.get("hang_after"))
    return response


def install(app: Flask) -> None:
    app.after_request(strike_after)
    app.wsgi_app = _CutConnections(app.wsgi_app)  # type: ignore[method-assign]


def _subject() -> dict[str, Any]:
    parts = request.path.split("/")
    creates = request.method == "POST" and len(parts) == 4 and parts[2] == "task"
    subject: dict[str, Any] = {
        "account": account(),
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


def _words(status: int) -> tuple[Response, int, dict[str, str]]:
    return jsonify(status_code=status, error=_WORDS.get(status, "The request was refused.")), status, {}


def _cut(hang: dict[str, Any] | None) -> Response:
    """End the connection without an answer: after a silence, or at once and with a reset."""
    request.environ[CUT] = "close" if hang else "reset"
    if hang:
        time.sleep(hang["seconds"])
    return Response(status=500)


class _CutConnections:
    """WSGI: instead of an answer, an end, where a fault asked for it."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        answer = self._app(environ, start_response)
        if CUT not in environ:
            return answer
        connection = environ.get("werkzeug.socket")
        if environ[CUT] == "reset" and connection is not None:
            callbacks.reset(connection)
        raise ConnectionResetError("A fault of the sandbox cut this connection.")
