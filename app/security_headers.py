"""Headers that keep answers from being framed, sniffed or run as a page."""

from __future__ import annotations

import base64
import hashlib
import re

from flask import Flask, Response, request

NOTHING = "default-src 'none'; frame-ancestors 'none'"
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def install(app: Flask) -> None:
    """Add the headers to every response that does not set its own."""
    app.after_request(add_headers)


def add_headers(response: Response) -> Response:
    """Return the response with X-Content-Type-Options and Content-Security-Policy."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if request.path.startswith("/api/docs"):
        response.headers.setdefault("Content-Security-Policy", documentation_policy(response))
    else:
        response.headers.setdefault("Content-Security-Policy", NOTHING)
    return response


def documentation_policy(response: Response) -> str:
    """Return the policy of Swagger UI: its own files, and the one inline script of its page by its hash."""
    scripts = ["'self'"]
    if response.mimetype == "text/html" and not response.direct_passthrough:
        for script in INLINE_SCRIPT.findall(response.get_data()):
            scripts.append(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'")
    return (
        f"default-src 'self'; script-src {' '.join(scripts)}; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; frame-ancestors 'none'"
    )
