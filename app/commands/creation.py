"""`flask creating …`: the one switch. Stopped, the service keeps receiving and creates nothing at Scale."""

from __future__ import annotations

import click

from app.commands.group import Group, actor, service
from app.commands.output import as_json, print_json
from pipeline.db.state import get_state
from pipeline.follow_ups import decisions
from pipeline.follow_ups.pauses import STOPPED, active_throttles


@click.group(cls=Group)
def creating() -> None:
    """Whether tasks are created at Scale: the one switch."""


@creating.command()
def stop() -> None:
    """Keep receiving and planning, create nothing."""
    with service().engine.begin() as connection:
        decisions.pause_creation(connection, actor())
    click.echo("Nothing is created at Scale until `flask creating start`. Receiving goes on.")


@creating.command()
def start() -> None:
    """Create again."""
    with service().engine.begin() as connection:
        decisions.resume_creation(connection, actor())
    click.echo("Tasks are created again; those that waited follow within a minute.")


@creating.command()
@as_json
def status(as_json: bool) -> None:
    """Say whether tasks are created, and what Scale asked to wait for."""
    with service().reader.begin() as connection:
        stopped = get_state(connection, STOPPED)
        pauses = active_throttles(connection)
    if as_json:
        print_json({"stopped": stopped is not None, **(stopped or {}), "pauses": pauses})
        return
    if stopped is not None:
        click.echo(
            f"Stopped by {stopped.get('actor')} at {stopped.get('at')}; `flask creating start` starts it."
        )
    else:
        click.echo("Tasks are created.")
    for pause in pauses:
        click.echo(f"The {pause['environment']} account waits until {pause['until']}: {pause['reason']}")
