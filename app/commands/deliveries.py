"""`weighbridge deliveries …`: every callback as it was received, and its replay."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO
from uuid import UUID

import click
from sqlalchemy.exc import SQLAlchemyError

from app.api.deliveries import Delivery, DeliveryDetail
from app.commands.bulk import act_on_each, print_outcome
from app.commands.bulk import reason as reason_option
from app.commands.errors import database_message
from app.commands.group import Group, actor, dispatch_now
from app.commands.output import (
    add_options,
    as_json,
    filters_from,
    limit,
    print_json,
    print_record,
    print_rows,
    printable,
)
from app.commands.timestamps import EXAMPLES, TIMESTAMP
from app.extensions import service
from pipeline.operations import dismissals
from pipeline.operations.queries import Record
from pipeline.operations.queries import deliveries as queries
from pipeline.receive.receive import DatabaseBusy
from pipeline.receive.replay import BodyPurged, iter_ids, replay
from scale.environments import ENVIRONMENTS

POLL_SECONDS = 0.5
TAIL_BATCH_SIZE = 1000
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
    """List and replay callbacks as they were received."""


filters = add_options(
    click.option("--status", type=click.Choice(queries.STATUSES), help="Select by status."),
    click.option("--task", "task_id", metavar="TASK_ID", help="Select the deliveries of this task."),
    click.option("--event", help="completed, accepted, rejected, fixed, recalled, error …"),
    click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Select by environment."),
    click.option("--kind", type=click.Choice(queries.KINDS), help="Select by origin."),
    click.option("--reason", help="Select the quarantined deliveries with exactly this reason."),
    click.option("--since", type=TIMESTAMP, help=f"Received at or after TIME: {EXAMPLES}."),
)
"""Adds the options that select deliveries."""


@deliveries.command("list")
@filters
@limit
@as_json
def list_deliveries(limit: int, as_json: bool, **options: Any) -> None:
    """List deliveries, newest first."""
    with service().reader.begin() as connection:
        page = queries.list_deliveries(connection, filters_from(**options), limit=limit)
    print_rows(Delivery(many=True).dump(page.rows), LISTED, as_json, "No matching deliveries.")


@deliveries.command()
@filters
@click.option(
    "-n",
    "lines",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="Print this many earlier deliveries first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def tail(lines: int, as_json: bool, **options: Any) -> None:
    """Print deliveries as they arrive, until Ctrl-C."""
    for row in _follow(filters_from(**options), lines):
        if as_json:
            click.echo(json.dumps(row, ensure_ascii=False))
        else:
            click.echo("  ".join(printable(row[name]) for name in LISTED if row[name] is not None))


def _follow(selected: Record, lines: int) -> Iterator[Record]:
    """Yield the last `lines` matching deliveries, then each new one."""
    with service().reader.begin() as connection:
        last = queries.latest_id(connection)
        rows = queries.list_deliveries(connection, selected, limit=lines).rows[::-1] if lines else []
    while True:
        for row in rows:
            last = max(row["id"], last or row["id"])
            yield Delivery().dump(row)
        time.sleep(POLL_SECONDS)
        try:
            with service().reader.begin() as connection:
                rows = queries.deliveries_after(connection, selected, last, TAIL_BATCH_SIZE)
        except SQLAlchemyError as error:
            click.echo(database_message(error), err=True)
            rows = []


@deliveries.command()
@click.argument("delivery_id", type=click.UUID)
@as_json
def show(delivery_id: UUID, as_json: bool) -> None:
    """Show one delivery with its headers, review and parse warnings."""
    with service().reader.begin() as connection:
        row = queries.get_delivery(connection, delivery_id)
    print_record(DeliveryDetail().dump(row), as_json)


@deliveries.command()
@click.argument("delivery_id", type=click.UUID)
@click.option("--output", type=click.File("wb"), default="-", help="Write to this file instead of stdout.")
def body(delivery_id: UUID, output: BinaryIO) -> None:
    """Write the bytes of a delivery as they were received."""
    for chunk in queries.stream_body(service().reader, delivery_id):
        output.write(chunk)
    output.flush()


@deliveries.command("replay")
@click.argument("delivery_ids", type=click.UUID, nargs=-1)
@click.option("--quarantined", is_flag=True, help="Select quarantined deliveries: --status quarantined.")
@filters
@click.option("--dry-run", is_flag=True, help="List the selected deliveries; change nothing.")
@as_json
def replay_deliveries(
    delivery_ids: tuple[UUID, ...], quarantined: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Apply stored deliveries again with the current code, and print what changed.

    Pass delivery ids, or select deliveries by options. Nothing is created twice.
    """
    selected = filters_from(**options)
    if quarantined:
        selected["status"] = "quarantined"
    if bool(delivery_ids) == bool(selected):
        raise click.UsageError(
            "Pass delivery ids, or select deliveries by options such as --quarantined or --task."
        )
    results: list[Record] = []
    for delivery_id in delivery_ids or iter_ids(service(), *queries.conditions(selected)):
        result = {"delivery_id": str(delivery_id)} if dry_run else replay_one(delivery_id)
        results.append(result)
        if not as_json:
            click.echo(f"{delivery_id}: {'would be replayed' if dry_run else describe(result)}")
    if as_json:
        print_json(results)
    elif not results:
        click.echo("No matching deliveries.")
    sys.exit(1 if any("error" in result for result in results) else 0)


def replay_one(delivery_id: UUID) -> Record:
    """Replay one delivery; return its status and changes, or `error`. Raises NotFound."""
    with service().reader.begin() as connection:
        queries.get_delivery(connection, delivery_id)
    try:
        done = replay(service(), delivery_id, actor())
    except DatabaseBusy as error:
        return {"delivery_id": str(delivery_id), "error": f"the task is locked, try again: {error}"}
    except BodyPurged as error:
        return {"delivery_id": str(delivery_id), "error": str(error)}
    dispatch_now(done.receipt.jobs)
    changed = {name: list(values) for name, values in done.changed.items()}
    return {"delivery_id": str(delivery_id), "status": done.receipt.status, "changed": changed}


def describe(result: Record) -> str:
    """Return the result of a replay on one line."""
    if "error" in result:
        return printable(result["error"])
    changes = (
        f"{name} {printable(old)} → {printable(new)}" for name, (old, new) in result["changed"].items()
    )
    return f"{result['status']}; {', '.join(changes) or 'no changes'}"


@deliveries.command("dismiss")
@click.argument("delivery_ids", type=click.UUID, nargs=-1)
@click.option("--quarantined", is_flag=True, help="Select all quarantined deliveries.")
@reason_option
@as_json
def dismiss_deliveries(delivery_ids: tuple[UUID, ...], quarantined: bool, reason: str, as_json: bool) -> None:
    """Dismiss quarantined deliveries: they stay stored, and doctor stops warning about them."""
    if bool(delivery_ids) == quarantined:
        raise click.UsageError("Pass delivery ids or --quarantined.")
    selected = delivery_ids or tuple(iter_ids(service(), *queries.conditions({"status": "quarantined"})))
    with service().engine.begin() as connection:
        dismissed, errors = act_on_each(
            connection, selected, partial(dismissals.dismiss_delivery, reason=reason)
        )
    print_outcome(list(dismissed), errors, "deliveries", as_json, key="dismissed")
