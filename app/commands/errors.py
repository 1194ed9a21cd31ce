"""Explain the errors that people may cause or meet, in one sentence each."""

from __future__ import annotations

import click
from sqlalchemy.exc import SQLAlchemyError

from config import SettingsError
from pipeline.operations.database_errors import explain
from pipeline.operations.queries import NotFound
from scale.client import ScaleError

COLLECTIONS = {
    "artifact": "artifacts",
    "backfill": "backfills",
    "delivery": "deliveries",
    "follow-up": "follow-ups",
    "job": "jobs",
    "join": "joins",
    "notification": "subscribers",
    "subscriber": "subscribers",
    "task": "tasks",
}
"""Noun in the message of NotFound → the group of commands whose `list` names the known ones."""


def friendly_error(error: Exception) -> click.ClickException | None:
    """Return one sentence for errors of settings, of unknown ids, of the database and of Scale; None for any other error."""
    if isinstance(error, SettingsError):
        return click.UsageError(str(error))
    if isinstance(error, NotFound):
        return click.ClickException(not_found_message(error))
    if isinstance(error, SQLAlchemyError):
        return click.ClickException(database_message(error))
    if isinstance(error, ScaleError):
        return click.ClickException(f"Scale API error: {error.message}")
    return None


def not_found_message(error: NotFound) -> str:
    """Return the message of a NotFound with the command that lists the known ids."""
    text = str(error)
    nouns = [noun for noun in COLLECTIONS if f"no {noun} " in text]
    listing = f" `weighbridge {COLLECTIONS[nouns[0]]} list` shows the known ones." if nouns else ""
    return f"{text[:1].upper()}{text[1:]}.{listing}"


def database_message(error: SQLAlchemyError) -> str:
    """Return what is wrong with the database and the next step."""
    explanation = explain(error)
    return f"{explanation.message[:1].upper()}{explanation.message[1:]}. {explanation.fix}"
