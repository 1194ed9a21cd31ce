"""`flask subscribers …`: who is told of what happens here, by signed webhooks."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click
from sqlalchemy import select

from app.api.subscribers import COLUMNS, HEARS, NOTIFICATIONS, STATES, Notification, Subscriber, shown
from app.commands.group import Group, actor, dispatch_now, service
from app.commands.output import as_json, fetch_rows, limit, print_record, print_rows
from models import Notification as NotificationRow
from models import Subscriber as Row
from pipeline.events import outbox
from pipeline.events import subscriptions as registry

LISTED = ("id", "url", "events", "enabled", "reason", "created_at")
HISTORY = ("id", "event", "state", "attempts", "created_at", "delivered_at")


@click.group(cls=Group)
def subscribers() -> None:
    """Outbound webhooks, signed by the Standard Webhooks scheme."""


@subscribers.command("list")
@as_json
def list_subscribers(as_json: bool) -> None:
    """Who is told of events."""
    with service().reader.begin() as connection:
        rows = connection.execute(select(*COLUMNS).order_by(Row.id)).mappings().all()
    told = Subscriber(many=True).dump([shown(row) for row in rows])
    print_rows(told, LISTED, as_json, "Nobody is told. `flask subscribers add` registers one.")


@subscribers.command(
    help=f"Tell URL of events from now on; its host must be named in SUBSCRIBER_HOSTS.\n\n{HEARS}."
)
@click.argument("url")
@click.argument("events", nargs=-1, required=True)
@click.option("--secret", help="whsec_… of your own. Left out, one is made.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with each request.")
@as_json
def add(
    url: str, events: tuple[str, ...], secret: str | None, headers: tuple[str, ...], as_json: bool
) -> None:
    given = dict(header.partition(":")[::2] for header in headers)
    try:
        with service().engine.begin() as connection:
            row = registry.add(
                connection,
                service().settings,
                actor(),
                url,
                events,
                secret=secret,
                headers={name.strip(): value.strip() for name, value in given.items()},
            )
    except registry.InvalidSubscriber as unfit:
        raise click.ClickException(str(unfit)) from None
    print_record({**Subscriber().dump(shown(row)), "secret": row["secret"]}, as_json)


@subscribers.command()
@click.argument("subscriber_id", type=click.UUID)
def remove(subscriber_id: UUID) -> None:
    """Forget a subscriber, with its history."""
    _change(registry.remove, subscriber_id)
    click.echo("Removed.")


@subscribers.command()
@click.argument("subscriber_id", type=click.UUID)
def enable(subscriber_id: UUID) -> None:
    """Tell it again."""
    _change(registry.enable, subscriber_id, True)
    click.echo("It is told again.")


@subscribers.command()
@click.argument("subscriber_id", type=click.UUID)
def disable(subscriber_id: UUID) -> None:
    """Tell it no more."""
    _change(registry.enable, subscriber_id, False)
    click.echo("It is told no more.")


@subscribers.command()
@click.argument("subscriber_id", type=click.UUID)
def test(subscriber_id: UUID) -> None:
    """Send `test.sent`, to see whether that arrives."""
    with service().engine.begin() as connection:
        job_ids = outbox.send_test(connection, registry.load_subscriptions(connection), subscriber_id)
    if not job_ids:
        raise click.ClickException(f"No subscriber {subscriber_id} is enabled.")
    dispatch_now(job_ids)
    click.echo(f"Sent; `flask subscribers history {subscriber_id}` shows what became of it.")


@subscribers.command()
@click.argument("subscriber_id", type=click.UUID)
@click.option("--state", type=click.Choice(STATES))
@limit
@as_json
def history(subscriber_id: UUID, state: str | None, limit: int, as_json: bool) -> None:
    """What a subscriber was told, and what became of each try."""
    where = [NotificationRow.subscriber_id == subscriber_id]
    if state is not None:
        where.append(NotificationRow.state == state)
    rows: list[dict[str, Any]] = fetch_rows(
        Notification, NOTIFICATIONS, where, NotificationRow.id.desc(), limit
    )
    if not as_json:
        rows = [{**row, "attempts": "; ".join(map(_said, row["attempts"]))} for row in rows]
    print_rows(rows, HISTORY, as_json, "It was told nothing so far.")


def _said(attempt: dict[str, Any]) -> str:
    return f"{attempt['at']} {attempt['status'] or ''} {attempt['error'] or 'taken'}"


@subscribers.command()
@click.argument("notification_id", type=click.UUID)
def replay(notification_id: UUID) -> None:
    """Send a notification again, under its own id."""
    dispatch_now(_change(registry.replay, notification_id))
    click.echo("It is sent again.")


def _change(change: Any, subject: UUID, *given: Any) -> Any:
    try:
        with service().engine.begin() as connection:
            return change(connection, actor(), subject, *given)
    except LookupError as missing:
        raise click.ClickException(str(missing.args[0])) from None
