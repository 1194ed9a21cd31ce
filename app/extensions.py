"""The two objects that every view and command works with, kept in `app.extensions` by `create_app`."""

from __future__ import annotations

from flask import Flask, current_app

from pipeline.service import Service
from workers.dispatcher import JobDispatcher

SERVICE = "weighbridge"
DISPATCHER = "dispatcher"


def install(app: Flask, service: Service, dispatcher: JobDispatcher) -> None:
    """Store both in the application."""
    app.extensions[SERVICE] = service
    app.extensions[DISPATCHER] = dispatcher


def service() -> Service:
    """Return the service of the current application."""
    found: Service = current_app.extensions[SERVICE]
    return found


def dispatcher() -> JobDispatcher:
    """Return the dispatcher that publishes job ids after a commit."""
    found: JobDispatcher = current_app.extensions[DISPATCHER]
    return found
