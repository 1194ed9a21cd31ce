"""The objects that views and commands share, kept in `app.extensions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import current_app

if TYPE_CHECKING:
    from app.failure_limiter import FailureLimiter
    from pipeline.operations.checks import Check
    from pipeline.service import Service
    from pipeline.timed_cache import TimedCache
    from workers.dispatcher import JobDispatcher

SERVICE = "weighbridge"
DISPATCHER = "dispatcher"
TOKEN_FAILURES = "token_failures"
KEY_FAILURES = "key_failures"
READINESS = "readiness"
METRICS = "metrics"


def service() -> Service:
    """Return the service of the current application."""
    found: Service = current_app.extensions[SERVICE]
    return found


def dispatcher() -> JobDispatcher:
    """Return the dispatcher that publishes job ids after a commit. A command makes it when it first has something to publish."""
    if DISPATCHER not in current_app.extensions:
        from workers.dispatcher import JobDispatcher  # with Celery, which few commands need

        current_app.extensions[DISPATCHER] = JobDispatcher(service().settings)
    found: JobDispatcher = current_app.extensions[DISPATCHER]
    return found


def token_failures() -> FailureLimiter:
    """Return the count of failed tokens by address, of the API and the console together."""
    found: FailureLimiter = current_app.extensions[TOKEN_FAILURES]
    return found


def key_failures() -> FailureLimiter:
    """Return the count of wrong callback keys by address."""
    found: FailureLimiter = current_app.extensions[KEY_FAILURES]
    return found


def readiness() -> TimedCache[list[Check]]:
    """Return the health checks of this process, which run at most once a second: anybody may ask for them."""
    found: TimedCache[list[Check]] = current_app.extensions[READINESS]
    return found


def metrics() -> TimedCache[bytes]:
    """Return the page of `/metrics`, which is made at most once a second: anybody may ask for it unless METRICS_TOKEN is set."""
    found: TimedCache[bytes] = current_app.extensions[METRICS]
    return found
