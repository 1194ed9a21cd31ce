"""Settings that are in force, with secrets masked, and what is wrong with them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from werkzeug.wrappers import Response

from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import dispatcher, service
from config import Settings
from pipeline.operations.checks import Context, run_readiness_checks

MASK = "••••"
SECRETS = (
    "scale_api_key",
    "scale_test_api_key",
    "api_token",
    "metrics_token",
    "secret_key",
    "sentry_dsn",
    "otel_exporter_otlp_headers",
    "sandbox_api_keys",
)
SECRET_LISTS = ("scale_live_callback_keys", "scale_test_callback_keys")
ADDRESSES = (
    "database_url",
    "redis_url",
    "scale_api_url",
    "public_url",
    "artifact_store",
    "otel_exporter_otlp_endpoint",
)


@blueprint.get("/settings")
def settings() -> Response:
    """Show name and value of every setting."""
    current = service().settings
    rows = [
        {"setting": field.name.upper(), "value": _value_of(current, field.name)} for field in fields(current)
    ]
    if (answer := download(("setting", "value"), rows)) is not None:
        return answer
    checks = run_readiness_checks(Context(service(), dispatcher().fault))
    return page("settings.html", "Settings", rows=rows, checks=checks)


def _without_credentials(address: str) -> str:
    """Return an address without user, password and query."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    host = rest.partition("?")[0].rpartition("@")[2]
    return f"{scheme}://{host}"


def _value_of(current: Settings, name: str) -> str:
    value: Any = getattr(current, name)
    if name in SECRETS:
        return MASK if value else "not set"
    if name in SECRET_LISTS:
        return f"{len(value)} keys" if value else "not set"
    if name in ADDRESSES and value:
        return _without_credentials(str(value))
    if isinstance(value, tuple | list | frozenset):
        return ", ".join(str(one) for one in value) or "not set"
    return "not set" if value is None else str(value)
