"""`weighbridge backup` and `weighbridge restore`: the database and the artifact store of one moment, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from app.commands.group import Command, actor
from app.commands.output import as_json, print_json
from app.commands.reconcile import progress
from app.extensions import service
from pipeline.backup.backup import back_up
from pipeline.backup.folder import UnusableBackup
from pipeline.backup.restore import NotEmpty
from pipeline.backup.restore import restore as run_restore


@click.command("backup", cls=Command)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@as_json
@with_appcontext
def backup(folder: Path, as_json: bool) -> None:
    """Write all rows and contents of this moment into FOLDER.

    Callbacks go on meanwhile. The next backup into the same folder replaces the rows and copies only new contents. It holds
    results and webhook secrets, and no settings.
    """
    try:
        with progress("backup") as (bar, line):
            manifest = back_up(
                service(),
                folder,
                actor(),
                lambda what, count: bar.update(line, description=what, completed=count),
            )
    except UnusableBackup as problem:
        raise click.ClickException(_sentence(problem)) from None
    _print(manifest, as_json, "Backed up")
    if missing := manifest["contents"]["missing"]:
        raise click.ClickException(
            f"{len(missing)} contents are not in the artifact store, among them {missing[0]}. The rest is backed up."
        )


@click.command("restore", cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Delete the rows that are there.")
@click.option("--dry-run", is_flag=True, help="Check every digest; change nothing.")
@as_json
@with_appcontext
def restore(folder: Path, force: bool, dry_run: bool, as_json: bool) -> None:
    """Restore the backup in FOLDER into an empty database, of either kind.

    Stop web and worker first. Run `weighbridge reconcile` afterwards: it fetches what came since the backup.
    """
    try:
        with progress("restore") as (bar, line):
            manifest = run_restore(
                service(),
                folder,
                actor(),
                force=force,
                dry_run=dry_run,
                report=lambda what, count: bar.update(line, description=what, completed=count),
            )
    except (UnusableBackup, NotEmpty) as problem:
        raise click.ClickException(_sentence(problem)) from None
    _print(manifest, as_json, "Checked" if dry_run else "Restored")


def _sentence(problem: Exception) -> str:
    text = str(problem)
    return f"{text[:1].upper()}{text[1:]}."


def _print(manifest: dict[str, Any], as_json: bool, verb: str) -> None:
    if as_json:
        print_json(manifest)
        return
    rows = sum(table["rows"] for table in manifest["tables"].values())
    contents = manifest["contents"]
    click.echo(
        f"{verb} {rows:,} rows and {contents['count']:,} contents ({contents['bytes']:,} bytes) of {manifest['created_at']}."
    )
