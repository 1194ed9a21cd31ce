"""The commands, `weighbridge …` and `flask …`. One file a group; SECTIONS is their registry."""

from __future__ import annotations

import click
from flask import Flask

from app.commands import scale_projects, workflow_previews  # noqa: F401  # add commands to their groups
from app.commands.artifacts import artifacts
from app.commands.audit import audit
from app.commands.backfills import backfills
from app.commands.backup import backup, restore
from app.commands.bulk_actions import bulk_actions
from app.commands.creation import creation
from app.commands.database import db
from app.commands.datasets import datasets
from app.commands.deliveries import deliveries
from app.commands.demo import demo
from app.commands.doctor import doctor
from app.commands.export import export
from app.commands.follow_ups import follow_ups
from app.commands.group import Group
from app.commands.jobs import jobs
from app.commands.joins import joins
from app.commands.purge import purge
from app.commands.reconcile import import_files, reconcile
from app.commands.runs import runs
from app.commands.scale import scale
from app.commands.spend import spend
from app.commands.stats import stats
from app.commands.subscribers import subscribers
from app.commands.task_types import task_types
from app.commands.tasks import tasks
from app.commands.tokens import tokens
from app.commands.up import up
from app.commands.workflows import workflows
from config.logging import log_to_standard_error
from sandbox.cli import sandbox

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Run": (up, demo, doctor, db),
    "Look": (tasks, runs, stats, spend, deliveries, artifacts, jobs, audit),
    "Datasets": (datasets, export),
    "Decide": (workflows, backfills, bulk_actions, follow_ups, joins, creation),
    "Keep and forget": (purge, backup, restore),
    "Operate": (reconcile, import_files, subscribers, tokens, scale),
    "Develop": (sandbox, task_types),
}
COMMANDS: tuple[click.Command, ...] = tuple(command for section in SECTIONS.values() for command in section)


class Commands(Group):
    """All commands, listed by section. Logs go to standard error: programs may read what a command prints."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Send logs to standard error and return the command: its output may be read by a program."""
        log_to_standard_error()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which the commands were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section of the help."""
        width = max(len(name) for name in self.commands)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (
                            str(command.name).ljust(width),
                            command.get_short_help_str(formatter.width - width - 6),
                        )
                        for command in commands
                    ]
                )


def make_commands(name: str | None = None, help_text: str | None = None) -> Commands:
    """Return a group with every command and the hidden former names."""
    group = Commands(name, help=help_text, commands={str(command.name): command for command in COMMANDS})
    group.alias("creating", "creation")
    return group


def register(app: Flask) -> None:
    """Give the application its commands, for `flask …`."""
    app.cli = make_commands()
