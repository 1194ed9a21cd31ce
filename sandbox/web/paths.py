"""Names in paths. Scale's clients encode them whole, so `a/b` arrives as `a%2Fb` and must not become two segments."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from werkzeug.routing import BaseConverter

_SLASH = "\x1f"


class NameConverter(BaseConverter):
    """One segment of a path, decoded, slashes and all."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        return value.replace(_SLASH, "/")

    def to_url(self, value: str) -> str:
        return quote(value, safe="")


class WholeSegments:
    """WSGI: splits the path as it was sent before decoding it, since servers decode it before they route."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        sent = environ.get("RAW_URI") or environ.get("REQUEST_URI")
        if sent:
            path = sent.partition("?")[0] if sent.startswith("/") else urlsplit(sent).path
            if path.startswith("/"):
                segments = (
                    unquote_to_bytes(segment).replace(b"/", _SLASH.encode()) for segment in path.split("/")
                )
                environ["PATH_INFO"] = b"/".join(segments).decode("latin-1")
        return self._app(environ, start_response)
