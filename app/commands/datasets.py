"""`weighbridge datasets …`: fixed lists of results, named, numbered, compared and verified."""

from __future__ import annotations

from typing import Any

import click

from app.commands.dataset_options import DatasetErrors, filter_options, split_options, take_request
from app.commands.group import Group, actor
from app.commands.output import as_json, print_json, print_record, print_rows
from app.extensions import service
from pipeline.datasets import diff as differences
from pipeline.datasets import verify as verification
from pipeline.datasets import versions
from pipeline.datasets.versions import Version
from pipeline.db.ids import format_timestamp

LISTED = ("name", "version", "tasks", "annotations", "splits", "as_of", "digest")


class Datasets(DatasetErrors, Group):
    """The group."""


@click.group(cls=Datasets)
def datasets() -> None:
    """Dataset versions: results that were chosen at a moment and never change."""


@datasets.command()
@click.argument("name")
@filter_options
@click.option("--as-of", help="Choose from what had been received by then: 2026-01-31T09:30:00Z, 7d.")
@split_options
@as_json
def create(name: str, as_of: str | None, as_json: bool, **options: Any) -> None:
    """Create the next version of the dataset NAME.

    Without filters it takes those of the version before; the first one takes every completed live task.
    """
    made = versions.create(service(), name, take_request(options, as_of), actor())
    if as_json:
        print_json(described(made))
        return
    counts = made.counts["annotations"]["total"]
    click.echo(f"{made.full_name}: {made.tasks:,} tasks, {counts:,} annotations, digest {made.digest[:12]}")
    if unread := made.counts["incomplete"]["unread_files"]:
        click.echo(f"{unread:,} tasks were left out: not all files of their results are read.", err=True)
    if errors := made.counts["incomplete"]["errors"]:
        click.echo(f"{errors:,} tasks were left out: their result is an error.", err=True)


@datasets.command("list")
@as_json
def list_datasets(as_json: bool) -> None:
    """List all versions of all datasets."""
    with service().reader.begin() as connection:
        found = [described(version) for version in versions.versions(connection)]
    if not as_json:
        for row in found:
            row["annotations"] = row["annotations"]["total"]
            row["splits"] = ", ".join(f"{name} {count}" for name, count in row["splits"].items())
            row["digest"] = row["digest"][:12]
    print_rows(found, LISTED, as_json, "There is no dataset yet. `datasets create NAME` makes one.")


@datasets.command()
@click.argument("reference", metavar="NAME[@N]")
@as_json
def show(reference: str, as_json: bool) -> None:
    """Show a version: its filters and moment, counts by type, label and split, classes and digest."""
    with service().reader.begin() as connection:
        found = versions.find(connection, reference)
    print_record(described(found), as_json)


@datasets.command()
@click.argument("before", metavar="NAME@N")
@click.argument("after", metavar="NAME@N")
@as_json
def diff(before: str, after: str, as_json: bool) -> None:
    """List what a version has that another has not: tasks, labels and shapes."""
    found = differences.compare(service().reader, before, after)
    if as_json:
        print_json(found)
        return
    for what, changes in found.items():
        for how, items in changes.items():
            click.echo(f"{what} {how}: {len(items):,}")
            for item in items[:20]:
                click.echo(f"  {item}")
            if len(items) > 20:
                click.echo(f"  … and {len(items) - 20:,} more; --json lists all")


@datasets.command()
@click.argument("reference", metavar="NAME[@N]")
@as_json
def verify(reference: str, as_json: bool) -> None:
    """Recompute every digest from the bodies and files as received, and look for leaks between the splits."""
    found = verification.verify(service(), reference)
    if as_json:
        print_json(found)
    else:
        for problem in found["problems"]:
            click.echo(problem)
        click.echo(
            f"{found['dataset']}: {found['checked']['tasks']:,} tasks, {found['checked']['files']:,} files checked."
        )
    if found["problems"]:
        raise click.exceptions.Exit(1)
    if not as_json:
        click.echo("Every digest is as it was, and no split leaks into another.")


@datasets.command()
@click.argument("reference", metavar="NAME@N")
@as_json
def delete(reference: str, as_json: bool) -> None:
    """Delete a version. Results stay; the number is never used again."""
    with service().engine.begin() as connection:
        deleted = versions.delete_version(connection, reference, actor())
    if as_json:
        print_json(described(deleted))
    else:
        click.echo(f"{deleted.full_name} is deleted.")


def described(version: Version) -> dict[str, Any]:
    """Return a version in the form of `show --json`."""
    counts = version.counts
    return {
        "name": version.name,
        "version": version.version,
        "digest": version.digest,
        "filters": version.filters,
        "as_of": format_timestamp(version.as_of, "microseconds"),  # --as-of with it gives the same members
        "tasks": counts["tasks"],
        "annotations": counts["annotations"],
        "splits": counts["splits"],
        "shares": version.shares,
        "split_by": version.split_by if version.shares else None,
        "classes": version.classes,
        "incomplete": counts["incomplete"],
        "damage": version.damage,
        "created_at": format_timestamp(version.created_at),
    }
