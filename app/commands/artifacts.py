"""`weighbridge artifacts …`: the files that responses point to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from app.api.artifacts import Artifact
from app.commands.group import Group, actor, dispatch_now
from app.commands.output import as_json, filters_from, limit, print_json, print_rows
from app.extensions import service
from pipeline.artifacts.jobs import retry
from pipeline.operations.queries import NotFound
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
    job_ids: list[UUID] = []
    unknown: list[UUID] = []
    retried: list[UUID] = []
    with service().engine.begin() as connection:
        selected = list(artifact_ids) or queries.matching_ids(
            connection, filters_from(state="failed", task_id=task_id)
        )
        for artifact_id in selected:
            try:
                queries.get_artifact(connection, artifact_id)
            except NotFound:
                unknown.append(artifact_id)
                continue
            job_ids += retry(connection, artifact_id, actor())
            retried.append(artifact_id)
    dispatch_now(job_ids)
    if as_json:
        print_json({"retried": retried, "unknown": unknown})
    else:
        click.echo(f"Refetching {len(retried)} files.")
    if unknown:
        raise click.ClickException(f"Unknown ids: {', '.join(map(str, unknown))}")
