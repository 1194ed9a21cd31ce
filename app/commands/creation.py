"""`weighbridge creation …`: pause the creation of tasks at Scale while callbacks are still received."""

from __future__ import annotations

import click

from app.commands.group import Group, actor
from app.commands.output import as_json, print_json
from app.extensions import service
from pipeline.follow_ups import decisions
from pipeline.operations.queries import Record
from pipeline.operations.queries.creation import creation_status


@click.group(cls=Group)
def creation() -> None:
    """Pause and resume the creation of tasks at Scale."""


@creation.command()
@as_json
def pause(as_json: bool) -> None:
    """Create no tasks until resumed. Receiving and planning continue."""
    with service().engine.begin() as connection:
        decisions.pause_creation(connection, actor())
        status = creation_status(connection)
    _print_status(status, as_json)


@creation.command()
@as_json
def resume(as_json: bool) -> None:
    """Create tasks again. Waiting ones are created within a minute."""
    with service().engine.begin() as connection:
        decisions.resume_creation(connection, actor())
        status = creation_status(connection)
    _print_status(status, as_json)


@creation.command("status")
@as_json
def show_status(as_json: bool) -> None:
    """Show whether tasks are created, and the rate limits of Scale."""
    with service().reader.begin() as connection:
        status = creation_status(connection)
    _print_status(status, as_json)


def _print_status(status: Record, as_json: bool) -> None:
    if as_json:
        print_json(status)
        return
    if status["stopped"]:
        environments = " and ".join(status["environments"])
        click.echo(
            f"Creation of {environments} tasks is paused by {status['stopped_by']} since {status['stopped_at']};"
            " `weighbridge creation resume` resumes it."
        )
        if status["reason"]:
            click.echo(status["reason"])
    else:
        click.echo("Tasks are created.")
    for pause in status["pauses"]:
        click.echo(f"{pause['environment']} tasks wait until {pause['until']}: {pause['reason']}")


creation.alias("stop", "pause")
creation.alias("start", "resume")
