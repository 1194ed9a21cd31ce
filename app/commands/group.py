"""What the groups of commands share: the service, and errors as one sentence instead of a traceback."""

from __future__ import annotations

from typing import Any, cast

import click
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from pipeline.service import Service
from scale.client import ScaleError


def service() -> Service:
    return cast(Service, current_app.extensions["weighbridge"])


class _Told:
    """A database or a Scale that refuses is told in a sentence, not as a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except SQLAlchemyError as fault:
            raise click.ClickException(database_fault(fault)) from fault
        except ScaleError as fault:
            raise click.ClickException(f"Scale says: {fault.message}") from fault


class Command(_Told, click.Command):
    """A command of its own; it runs inside the application's context."""


class Group(_Told, AppGroup):
    """A group of commands that run inside the application's context."""


def database_fault(fault: SQLAlchemyError) -> str:
    """What the database said, and what is likely to mend it."""
    said = str(getattr(fault, "orig", None) or fault).strip().splitlines()[0]
    if "no such table" in said or "does not exist" in said:
        return f"The database has no tables of this version ({said}). `flask db upgrade` makes them."
    return f"The database does not answer as it should: {said}. `flask doctor` says more."
