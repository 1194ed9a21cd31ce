"""The refusals of Scale's API, in the form that its clients read: `{"status_code": 404, "error": "…"}`."""

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException


class ScaleError(Exception):
    """Becomes the answer with this status and text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def invalid(reason: str) -> ScaleError:
    """400 in the words of Scale's own check of parameters."""
    return ScaleError(400, f"Parameter is invalid, reason: {reason}")


def register_error_handlers(app: Flask) -> None:
    @app.errorhandler(ScaleError)
    def _refused(refused: ScaleError) -> tuple[Response, int]:
        return _body(refused.status, refused.message)

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> tuple[Response, int]:
        return _body(error.code or 500, error.description or error.name)

    @app.errorhandler(Exception)
    def _unforeseen(error: Exception) -> tuple[Response, int]:
        app.logger.exception("The sandbox failed")
        return _body(500, "Internal Server Error - the sandbox failed, its log says why.")


def _body(status: int, message: str) -> tuple[Response, int]:
    return jsonify(status_code=status, error=message), status
