"""The objects that views and commands share, kept in `app.extensions` by `create_app`."""

from __future__ import annotations

from flask import Flask, current_app

from app.failure_limiter import FailureLimiter
from pipeline.service import Service
from workers.dispatcher import JobDispatcher

SERVICE = "weighbridge"
DISPATCHER = "dispatcher"
TOKEN_FAILURES = "token_failures"


def install(app: Flask, service: Service, dispatcher: JobDispatcher) -> None:
    """Store them in the application, with an empty count of failed tokens."""
    app.extensions[SERVICE] = service
    app.extensions[DISPATCHER] = dispatcher
    app.extensions[TOKEN_FAILURES] = FailureLimiter()


def service() -> Service:
    """Return the service of the current application."""
    found: Service = current_app.extensions[SERVICE]
    return found


def dispatcher() -> JobDispatcher:
    """Return the dispatcher that publishes job ids after a commit."""
    found: JobDispatcher = current_app.extensions[DISPATCHER]
    return found


def token_failures() -> FailureLimiter:
    """Return the count of failed tokens by address, of the API and the console together."""
    found: FailureLimiter = current_app.extensions[TOKEN_FAILURES]
    return found
