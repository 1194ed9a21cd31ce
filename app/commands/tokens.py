"""`flask tokens …`: who may use the REST API."""

from __future__ import annotations

import click
from marshmallow import Schema, fields

from app.api.lists import Timestamp
from app.commands.group import Group, actor, service
from app.commands.output import as_json, fetch_rows, print_rows
from models import ApiToken
from pipeline.access import tokens as registry
from pipeline.access.audit import log_action


class Token(Schema):
    """What is kept of a token: never the token itself."""

    name = fields.String()
    scopes = fields.List(fields.String())
    created_at = Timestamp()
    revoked_at = Timestamp(allow_none=True)


@click.group(cls=Group)
def tokens() -> None:
    """Tokens of the REST API."""


@tokens.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(registry.SCOPES),
    multiple=True,
    default=registry.SCOPES,
    show_default=True,
    help="What it may do; can be given more than once.",
)
def create(name: str, scopes: tuple[str, ...]) -> None:
    """Make a token for NAME, and print it: it is shown this once."""
    with service().engine.begin() as connection:
        token = registry.issue(connection, name, scopes)
        log_action(connection, actor(), "token.create", name, {"scopes": sorted(set(scopes))})
    click.echo(token)


@tokens.command("list")
@as_json
def list_tokens(as_json: bool) -> None:
    """Who has one. API_TOKEN, if it is set, is one more."""
    columns = tuple(getattr(ApiToken, name) for name in Token._declared_fields)
    rows = fetch_rows(Token, columns, [], ApiToken.id.desc(), 100_000)
    print_rows(
        rows, Token._declared_fields, as_json, "There is no token. `flask tokens create NAME` makes one."
    )


@tokens.command()
@click.argument("name")
def revoke(name: str) -> None:
    """End every token of NAME now."""
    with service().engine.begin() as connection:
        ended = registry.revoke(connection, name)
        if ended:
            log_action(connection, actor(), "token.revoke", name)
    if not ended:
        raise click.ClickException(f"No token of {name} is in use. `flask tokens list` shows those that are.")
    click.echo(f"{ended} ended.")
