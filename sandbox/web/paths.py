"""Decode names in paths. Scale's clients encode the name `a/b` as `a%2Fb`; it must remain one segment."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from werkzeug.routing import BaseConverter

_ENCODED_SLASH = "\x1f"


class NameConverter(BaseConverter):
    """Match one segment of a path, which may contain encoded slashes."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        """Return the decoded name."""
        return value.replace(_ENCODED_SLASH, "/")

    def to_url(self, value: str) -> str:
        """Return the encoded name."""
        return quote(value, safe="")


class EncodedSlashMiddleware:
    """Split the path into segments before decoding it: WSGI servers decode first."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        """Wrap a WSGI application."""
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Rewrite PATH_INFO and call the application."""
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
        if raw:
            path = raw.partition("?")[0] if raw.startswith("/") else urlsplit(raw).path
            if path.startswith("/"):
                segments = (
                    unquote_to_bytes(segment).replace(b"/", _ENCODED_SLASH.encode())
                    for segment in path.split("/")
                )
                environ["PATH_INFO"] = b"/".join(segments).decode("latin-1")
        return self._app(environ, start_response)
