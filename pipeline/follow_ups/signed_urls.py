"""Signed, expiring addresses of this service's own: `{PUBLIC_URL}/files/{signed}` is a file that Scale may read for a while.

A file behind a request is given to Scale so; app/files.py answers.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import NamedTuple

from itsdangerous import BadSignature, URLSafeSerializer

from config import Settings

LIFETIME = timedelta(days=7)
"""Scale downloads an attachment when the task is created; its people may look at it for days."""
PATH = "/files/"


class Content(NamedTuple):
    """What a signed address stands for."""

    sha256: str
    media_type: str
    until: int  # seconds since 1970


def signed_url(settings: Settings, sha256: str, media_type: str) -> str:
    """Return a signed URL for a file in the artifact store."""
    until = int(time.time() + LIFETIME.total_seconds())
    signed = _signer(settings).dumps(Content(sha256, media_type, until))
    return f"{settings.public_url}{PATH}{signed!s}"


def parse_signed(settings: Settings, signed: str) -> Content | None:
    """Return the signed content, expired or not; None if the signature is not ours."""
    try:
        return Content(*_signer(settings).loads(signed))
    except BadSignature:
        return None


def parse_own_url(settings: Settings, url: str) -> Content | None:
    """Return the content of a URL that this service signed; None for other URLs."""
    ours = f"{settings.public_url}{PATH}"
    return (
        parse_signed(settings, url.removeprefix(ours))
        if settings.public_url and url.startswith(ours)
        else None
    )


def _signer(settings: Settings) -> URLSafeSerializer:
    return URLSafeSerializer(settings.secret_key, salt="weighbridge.files")
