"""`flask deliveries …`: every callback as it came, and taking it once more."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID

import click
from sqlalchemy import ColumnElement, select, text
from sqlalchemy.exc import SQLAlchemyError

from app.api.deliveries import COLUMNS, DETAIL, STATUSES, Delivery, DeliveryDetail
from app.commands.group import Group, actor, database_fault, dispatch_now, service
from app.commands.output import as_json, fetch_rows, limit, print_json, print_record, print_rows, printable
from app.commands.timestamps import TIMESTAMP
from models import Delivery as Row
from pipeline.access.audit import log_action
from pipeline.receive.receive import DatabaseBusy
from pipeline.receive.replay import Replay, iter_ids, replay

LOOK_SECONDS = 0.5
LISTED = (
    "id",
    "received_at",
    "status",
    "event",
    "environment",
    "task_id",
    "size_bytes",
    "duplicates",
    "reason",
)


@click.group(cls=Group)
def deliveries() -> None:
    """Callbacks as they were received."""


def filters(command: Any) -> Any:
    """Options that choose deliveries."""
    for option in (
        click.option(
            "--since",
            type=TIMESTAMP,
            help="Received then or later: 2026-01-31, 2026-01-31T09:30:00Z, 2h, 7d.",
        ),
        click.option("--kind", type=click.Choice(("callback", "reconciled", "imported"))),
        click.option("--environment", type=click.Choice(("live", "test"))),
        click.option("--event", help="completed, accepted, rejected, fixed, recalled, error …"),
        click.option("--task", "task_id", metavar="TASK_ID"),
        click.option("--status", type=click.Choice(STATUSES)),
    ):
        command = option(command)
    return command


def chosen(since: datetime | None = None, **wanted: str | None) -> Iterator[ColumnElement[bool]]:
    for name, value in wanted.items():
        if value is not None:
            yield getattr(Row, name) == value
    if wanted.get("status") not in (None, "processed"):
        yield text("deliveries.status != 'processed'")  # type: ignore[misc]  # the words of the partial index
    if since is not None:
        yield Row.received_at >= since


@deliveries.command("list")
@filters
@limit
@as_json
def list_deliveries(limit: int, as_json: bool, **wanted: Any) -> None:
    """The newest deliveries."""
    rows = fetch_rows(Delivery, COLUMNS, chosen(**wanted), Row.id.desc(), limit)
    print_rows(rows, LISTED, as_json, "No delivery is like that.")


@deliveries.command()
@filters
@click.option(
    "-n",
    "lines",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="So many older ones first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def tail(lines: int, as_json: bool, **wanted: Any) -> None:
    """Show deliveries as they come, until Ctrl-C."""
    last: UUID | None = None
    where = list(chosen(**wanted))
    rows = fetch_rows(Delivery, COLUMNS, where, Row.id.desc(), lines)[::-1] if lines else []
    if not lines:
        with service().reader.begin() as connection:
            last = connection.scalar(select(Row.id).order_by(Row.id.desc()).limit(1))
    while True:
        for row in rows:
            last = UUID(row["id"])
            if as_json:
                click.echo(json.dumps(row, ensure_ascii=False))
            else:
                click.echo("  ".join(printable(row[name]) for name in LISTED if row[name] is not None))
        time.sleep(LOOK_SECONDS)
        after = [Row.id > last] if last else []
        try:
            rows = fetch_rows(Delivery, COLUMNS, [*where, *after], Row.id, 1000)
        except SQLAlchemyError as fault:
            click.echo(database_fault(fault), err=True)
            rows = []


@deliveries.command()
@click.argument("delivery_id", type=click.UUID)
@as_json
def show(delivery_id: UUID, as_json: bool) -> None:
    """One delivery with its headers, its review and what was odd about it."""
    found = fetch_rows(DeliveryDetail, DETAIL, [Row.id == delivery_id], Row.id, 1)
    if not found:
        raise unknown(delivery_id)
    print_record(found[0], as_json)


@deliveries.command()
@click.argument("delivery_id", type=click.UUID)
@click.option("--output", type=click.File("wb"), default="-", help="A file; standard output by default.")
def body(delivery_id: UUID, output: BinaryIO) -> None:
    """The bytes of a delivery, as they came."""
    with service().reader.begin() as connection:
        content = connection.scalar(select(Row.body).where(Row.id == delivery_id))
    if content is None:
        raise unknown(delivery_id)
    output.write(content)
    output.flush()


@deliveries.command("replay")
@click.argument("delivery_ids", type=click.UUID, nargs=-1)
@click.option(
    "--quarantined", is_flag=True, help="Those that were not understood: short for --status quarantined."
)
@filters
@click.option("--dry-run", is_flag=True, help="Only say which ones.")
@as_json
def replay_deliveries(
    delivery_ids: tuple[UUID, ...], quarantined: bool, dry_run: bool, as_json: bool, **wanted: Any
) -> None:
    """Take deliveries the same way once more, with the code as it is now, and say what changed.

    Those that are named, or all that the options choose. Nothing is created twice.
    """
    if quarantined:
        wanted["status"] = "quarantined"
    if bool(delivery_ids) == any(value is not None for value in wanted.values()):
        raise click.UsageError("Name deliveries, or choose them by options such as --quarantined or --task.")
    outcomes: list[dict[str, Any]] = []
    for delivery_id in delivery_ids or iter_ids(service(), *chosen(**wanted)):
        outcome = {"delivery_id": str(delivery_id)} if dry_run else taken_again(delivery_id)
        outcomes.append(outcome)
        if not as_json:
            click.echo(f"{delivery_id}: {'would be taken again' if dry_run else in_words(outcome)}")
    if as_json:
        print_json(outcomes)
    elif not outcomes:
        click.echo("No delivery is like that.")
    sys.exit(1 if any("error" in outcome for outcome in outcomes) else 0)


def taken_again(delivery_id: UUID) -> dict[str, Any]:
    """Replay one; what became of it, or `error`."""
    try:
        done: Replay = replay(service(), delivery_id)
    except LookupError:
        raise unknown(delivery_id) from None
    except DatabaseBusy as busy:
        return {"delivery_id": str(delivery_id), "error": f"the task's row is in use, try again: {busy}"}
    with service().engine.begin() as connection:
        log_action(connection, actor(), "delivery.replay", str(delivery_id), {"status": done.receipt.status})
    dispatch_now(done.receipt.jobs)
    changed = {name: list(values) for name, values in done.changed.items()}
    return {"delivery_id": str(delivery_id), "status": done.receipt.status, "changed": changed}


def in_words(outcome: dict[str, Any]) -> str:
    if "error" in outcome:
        return printable(outcome["error"])
    changes = (
        f"{name} {printable(old)} → {printable(new)}" for name, (old, new) in outcome["changed"].items()
    )
    return f"{outcome['status']}; {', '.join(changes) or 'nothing changed'}"


def unknown(delivery_id: UUID) -> click.ClickException:
    return click.ClickException(
        f"No delivery {delivery_id} is known. `flask deliveries list` shows those that are."
    )
