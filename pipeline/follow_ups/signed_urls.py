"""Signed, expiring URLs of this service: `{PUBLIC_URL}/files/{signed}` lets Scale read one stored file for LIFETIME.

Files that a request refers to are given to Scale this way; app/signed_files.py answers.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from itsdangerous import BadSignature, URLSafeTimedSerializer

from config import Settings

LIFETIME = timedelta(days=7)
"""Scale downloads an attachment when the task is created; its labelers may open it for days."""
PATH = "/files/"


class Content(NamedTuple):
    """The stored file that a signed URL gives access to."""

    sha256: str
    media_type: str
    until: int  # expiry, in seconds since 1970


def signed_url(settings: Settings, sha256: str, media_type: str) -> str:
    """Return a new URL of a file in the artifact store."""
    signed = _serializer(settings).dumps((sha256, media_type))
    return f"{settings.public_url}{PATH}{signed!s}"


def parse_signed(settings: Settings, signed: str) -> Content | None:
    """Return what was signed, also after its expiry; None if this service did not sign it."""
    try:
        (sha256, media_type), signed_at = _serializer(settings).loads(signed, return_timestamp=True)
    except BadSignature:
        return None
    return Content(sha256, media_type, int((signed_at + LIFETIME).timestamp()))


def parse_own_url(settings: Settings, url: str) -> Content | None:
    """Return the file behind a signed URL of this service; None for any other URL."""
    prefix = f"{settings.public_url}{PATH}"
    if not settings.public_url or not url.startswith(prefix):
        return None
    return parse_signed(settings, url.removeprefix(prefix))


def _serializer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(settings.secret_key, salt="weighbridge.files")
