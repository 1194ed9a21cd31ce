"""`weighbridge tokens …`: tokens of the REST API."""

from __future__ import annotations

from datetime import datetime, timedelta

import click
from marshmallow import Schema, fields

from app.api.fields import Timestamp
from app.commands.group import Group, actor
from app.commands.output import as_json, print_json, print_rows
from app.commands.timestamps import FUTURE
from app.extensions import service
from pipeline.access import tokens as registry
from pipeline.operations.queries.tokens import list_tokens


class Token(Schema):
    """What is stored of a token: never the token itself."""

    name = fields.String()
    scopes = fields.List(fields.String())
    projects = fields.List(fields.String(), allow_none=True)
    created_at = Timestamp()
    expires_at = Timestamp(allow_none=True)
    revoked_at = Timestamp(allow_none=True)


@click.group(cls=Group)
def tokens() -> None:
    """Create, list and revoke tokens of the REST API."""


@tokens.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice((*registry.SCOPES, *registry.ALIASES)),
    multiple=True,
    default=registry.SCOPES,
    show_default=True,
    help="Grant this scope; can be given more than once.",
)
@click.option(
    "--project", "projects", multiple=True, help="Bind it to this project; can be given more than once."
)
@click.option("--expires", type=FUTURE, help="When it expires: 90d, 2027-01-31. Default: never.")
@as_json
def create(
    name: str, scopes: tuple[str, ...], projects: tuple[str, ...], expires: datetime | None, as_json: bool
) -> None:
    """Create a token for NAME and print it. It is shown only once."""
    with service().engine.begin() as connection:
        token = registry.issue(connection, name, scopes, actor=actor(), expires_at=expires, projects=projects)
    if as_json:
        print_json({"name": name, "scopes": sorted(set(scopes)), "token": token})
    else:
        click.echo(token)


@tokens.command("list")
@as_json
def list_all(as_json: bool) -> None:
    """List tokens. API_TOKEN, if it is set, is one more."""
    with service().reader.begin() as connection:
        rows = Token(many=True).dump(list_tokens(connection))
    empty = "No tokens. `weighbridge tokens create NAME` creates one."
    print_rows(rows, ("name", "scopes", "projects", "created_at", "expires_at", "revoked_at"), as_json, empty)


@tokens.command()
@click.argument("name")
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, 24 * 90),
    default=24,
    show_default=True,
    help="How long the tokens that NAME has remain valid.",
)
@click.option("--expires", type=FUTURE, help="When the new token expires: 90d, 2027-01-31. Default: never.")
@as_json
def rotate(name: str, overlap_hours: int, expires: datetime | None, as_json: bool) -> None:
    """Create another token for NAME with the same scopes and projects, and let the present ones expire.

    It is shown only once. Put it where the present one is used before that one expires.
    """
    overlap = timedelta(hours=overlap_hours)
    try:
        with service().engine.begin() as connection:
            token = registry.rotate(connection, name, actor=actor(), overlap=overlap, expires_at=expires)
    except LookupError as error:
        raise click.ClickException(
            f"{str(error)[:1].upper()}{str(error)[1:]}. `weighbridge tokens list` shows the known ones."
        ) from None
    if as_json:
        print_json({"name": name, "token": token})
    else:
        click.echo(token)


@tokens.command()
@click.argument("name")
@as_json
def revoke(name: str, as_json: bool) -> None:
    """Revoke every token of NAME."""
    with service().engine.begin() as connection:
        revoked = registry.revoke(connection, name, actor=actor())
    if not revoked:
        raise click.ClickException(
            f"No active token is called {name}. `weighbridge tokens list` shows the known ones."
        )
    if as_json:
        print_json({"name": name, "revoked": revoked})
    else:
        click.echo(f"Revoked {revoked} tokens.")
