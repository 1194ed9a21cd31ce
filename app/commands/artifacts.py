"""`flask artifacts …`: the files behind responses, and bringing one in again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import click
from sqlalchemy import ColumnElement, select

from app.api.artifacts import SHOWN, STATES, Artifact
from app.commands.group import Group, actor, dispatch_now, service
from app.commands.output import as_json, fetch_rows, limit, print_rows
from models import Artifact as Row
from pipeline.access.audit import log_action
from pipeline.artifacts.jobs import retry

LISTED = ("id", "task_id", "role", "state", "attempts", "size_bytes", "annotation_count", "reason")


@click.group(cls=Group)
def artifacts() -> None:
    """Files that responses point to."""


def chosen(**wanted: str | None) -> Iterator[ColumnElement[bool]]:
    for name, value in wanted.items():
        if value is not None:
            yield getattr(Row, name) == value


@artifacts.command("list")
@click.option("--state", type=click.Choice(STATES))
@click.option("--task", "task_id", metavar="TASK_ID")
@limit
@as_json
def list_artifacts(limit: int, as_json: bool, **wanted: Any) -> None:
    """The newest files."""
    rows = fetch_rows(Artifact, SHOWN, chosen(**wanted), Row.id.desc(), limit)
    print_rows(rows, LISTED, as_json, "No file is like that.")


@artifacts.command("retry")
@click.argument("artifact_ids", type=click.UUID, nargs=-1)
@click.option("--failed", is_flag=True, help="All that have failed.")
@click.option("--task", "task_id", metavar="TASK_ID", help="With --failed: only those of this task.")
def retry_artifacts(artifact_ids: tuple[UUID, ...], failed: bool, task_id: str | None) -> None:
    """Bring files in again: one that failed is fetched anew, one that is here is read anew."""
    if bool(artifact_ids) == failed:
        raise click.UsageError("Name files by their ids, or say --failed.")
    found = chosen(state="failed", task_id=task_id) if failed else iter([Row.id.in_(artifact_ids)])
    job_ids: list[UUID] = []
    with service().engine.begin() as connection:
        ids = connection.scalars(select(Row.id).where(*found)).all()
        for artifact_id in ids:
            job_ids += retry(connection, artifact_id)
            log_action(connection, actor(), "artifact.retry", str(artifact_id))
    dispatch_now(job_ids)
    click.echo(f"{len(ids)} are brought in again.")
    if unknown := set(artifact_ids) - set(ids):
        raise click.ClickException(f"These are not known: {', '.join(map(str, sorted(unknown)))}")
