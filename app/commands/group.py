"""What the groups of commands share: the service, who asks, and errors as one sentence instead of a traceback."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import click
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from pipeline.service import Service
from scale.client import ScaleError
from workers.dispatcher import JobDispatcher


def service() -> Service:
    return cast(Service, current_app.extensions["weighbridge"])


def dispatcher() -> JobDispatcher:
    return cast(JobDispatcher, current_app.extensions["dispatcher"])


def dispatch_now(job_ids: Sequence[UUID]) -> None:
    """Ring for jobs that were committed, now: this process may end before a thread of its own would."""
    if job_ids and not dispatcher().embedded:
        dispatcher().publish(job_ids)


def actor() -> str:
    """Who decides, for the audit log: the person's name on this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # containers run under numbers without a name
        return "cli"


class FriendlyErrors:
    """A database or a Scale that refuses is told in a sentence, not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except SQLAlchemyError as fault:
            raise click.ClickException(database_fault(fault)) from fault
        except ScaleError as fault:
            raise click.ClickException(f"Scale says: {fault.message}") from fault


class Command(FriendlyErrors, click.Command):
    """A command of its own; it runs inside the application's context."""


class Group(FriendlyErrors, AppGroup):
    """A group of commands that run inside the application's context."""


def database_fault(fault: SQLAlchemyError) -> str:
    """What the database said, and what is likely to mend it."""
    said = str(getattr(fault, "orig", None) or fault).strip().splitlines()[0]
    if "no such table" in said or "no such column" in said or "does not exist" in said:
        return f"The database has not the tables of this version ({said}). `flask db upgrade` makes them."
    return f"The database does not answer as it should: {said}. `flask doctor` says more."
