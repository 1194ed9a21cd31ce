"""`weighbridge artifacts …`: the files that responses point to."""

from __future__ import annotations

from itertools import chain
from typing import Any
from uuid import UUID

import click
from sqlalchemy import Connection

from app.api.artifacts import Artifact
from app.commands.bulk import act_on_each, print_outcome
from app.commands.group import Group, dispatch_now
from app.commands.output import as_json, filters_from, limit, print_rows
from app.extensions import service
from pipeline.artifacts.retry import retry
from pipeline.operations.queries import artifacts as queries

LISTED = ("id", "task_id", "role", "state", "attempts", "size_bytes", "annotation_count", "reason")


@click.group(cls=Group)
def artifacts() -> None:
    """List and refetch files that responses point to."""


@artifacts.command("list")
@click.option("--state", type=click.Choice(queries.STATES), help="Select by state.")
@click.option("--task", "task_id", metavar="TASK_ID", help="Select the files of this task.")
@limit
@as_json
def list_artifacts(limit: int, as_json: bool, **options: Any) -> None:
    """List files, newest first."""
    with service().reader.begin() as connection:
        page = queries.list_artifacts(connection, filters_from(**options), limit=limit)
    print_rows(Artifact(many=True).dump(page.rows), LISTED, as_json, "No matching files.")


@artifacts.command("retry")
@click.argument("artifact_ids", type=click.UUID, nargs=-1)
@click.option("--failed", is_flag=True, help="Select all failed files.")
@click.option("--task", "task_id", metavar="TASK_ID", help="With --failed: only files of this task.")
@as_json
def retry_artifacts(artifact_ids: tuple[UUID, ...], failed: bool, task_id: str | None, as_json: bool) -> None:
    """Fetch failed files again, and read stored ones again."""
    if bool(artifact_ids) == failed:
        raise click.UsageError("Pass artifact ids or --failed.")
    with service().engine.begin() as connection:
        selected = list(artifact_ids) or queries.matching_ids(
            connection, filters_from(state="failed", task_id=task_id)
        )
        retried, errors = act_on_each(connection, selected, _retry)
    dispatch_now(list(chain.from_iterable(retried.values())))
    print_outcome(list(retried), errors, "files", as_json, key="retried")


def _retry(connection: Connection, artifact_id: UUID, actor: str) -> list[UUID]:
    queries.get_artifact(connection, artifact_id)
    return retry(connection, artifact_id, actor)
