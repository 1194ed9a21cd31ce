"""`weighbridge db …`: the revision of the database, and its migrations."""

from __future__ import annotations

import click

from app.commands.group import Group
from app.commands.output import as_json, print_json
from app.extensions import service
from pipeline.db.revisions import revisions
from pipeline.operations.upgrade import RowsLost, upgrade_database


@click.group(cls=Group)
def db() -> None:
    """Show and upgrade the revision of the database."""


@db.command()
@as_json
def current(as_json: bool) -> None:
    """Show the database's revision and the required one. Exit with 1 if they differ."""
    with service().reader.begin() as connection:
        revision, required = revisions(connection)
    if as_json:
        print_json({"revision": revision, "required": required})
    else:
        click.echo(f"{revision or 'empty'} (required: {required})")
    if revision != required:
        raise click.ClickException("The database schema is out of date; run `weighbridge db upgrade`.")


@db.command()
@as_json
def upgrade(as_json: bool) -> None:
    """Migrate the database to the required revision, and check that no row was lost."""
    try:
        done = upgrade_database(service())
    except RowsLost as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        print_json(done._asdict())
    else:
        click.echo(str(done))
