"""`weighbridge export FORMAT OUT`: a dataset version, or the tasks that filters choose, in the form that training code reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from flask.cli import with_appcontext
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.commands.dataset_options import DatasetErrors, filter_options, split_options, take_request
from app.commands.group import Command
from app.commands.output import as_json, print_json, print_rows
from app.extensions import service
from exports import table
from exports.engine import Progress as Steps
from exports.engine import write_export
from exports.export import Options
from exports.format import GEOMETRIES, MissingPackage
from exports.formats import find_format
from exports.jobs import chosen_version
from exports.output import OutputFailed, OutputRefused, without_credentials

LOG_SECONDS = 10.0


class ExportCommand(DatasetErrors, Command):
    """The command."""


def print_formats(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    """Print the table of formats and end."""
    if not wanted or ctx.resilient_parsing:
        return
    print_rows(table.rows(), ("format", *GEOMETRIES, "files"), False, "")
    ctx.exit()


@click.command(cls=ExportCommand)
@click.argument("format_name", metavar="FORMAT")
@click.argument("out", metavar="OUT")
@click.option("--dataset", metavar="NAME[@N]", help="A dataset version, instead of filters.")
@filter_options
@split_options
@click.option(
    "--images",
    type=click.Choice(("link", "copy")),
    default="link",
    show_default=True,
    help="Write the images' addresses, or the images.",
)
@click.option(
    "--croissant", is_flag=True, help="Add croissant.json, which describes the files for dataset search."
)
@click.option(
    "--formats",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_formats,
    help="Print the formats and the geometries that each holds.",
)
@as_json
@with_appcontext
def export(
    format_name: str,
    out: str,
    dataset: str | None,
    images: str,
    croissant: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write results to OUT: a folder, a .zip file or an fsspec address such as s3://bucket/folder.

    export.json in OUT says what was written, left out and changed, and why.
    """
    format_ = find_format(format_name)
    request = take_request(options)
    try:
        format_.check_packages()
        with chosen_version(service(), dataset, request) as version, shown_progress() as progress:
            manifest = write_export(
                service(),
                version,
                format_,
                Options(images=images, croissant=croissant),
                out,
                progress=progress,
                restarts=lambda: click.echo("An interrupted export was found; it starts again.", err=True),
            )
    except (OutputRefused, OutputFailed, MissingPackage) as refused:
        raise click.ClickException(str(refused.args[0])) from None
    except OSError as failure:
        raise click.ClickException(f"{without_credentials(out)} cannot be written: {failure}") from None
    if as_json:
        print_json(manifest)
    else:
        print_summary(manifest, out)


@contextmanager
def shown_progress() -> Iterator[Steps]:
    """Provide a progress bar on a terminal; else a line now and then."""
    if sys.stderr.isatty():
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            transient=True,
        ) as bar:
            task = bar.add_task("Exporting")
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            click.echo(f"{done:,} of {total:,} steps", err=True)

    yield line


def print_summary(manifest: dict[str, Any], out: str) -> None:
    """Print what was written, and on standard error what was left out or changed."""
    written = manifest["written"]
    click.echo(
        f"{out}: {written['tasks']:,} tasks, {written['images']:,} images, "
        f"{written['annotations']['total']:,} annotations in {len(manifest['files']):,} files."
    )
    for entry in manifest["left_out"]:
        click.echo(f"Left out: {entry['count']:,} {entry['type']}: {entry['reason']}", err=True)
    for entry in manifest["changed"]:
        click.echo(f"Changed: {entry['count']:,} {entry['type']}: {entry['change']}", err=True)
