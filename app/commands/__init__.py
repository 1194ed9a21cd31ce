"""The commands, `weighbridge …` and `flask …`. One file a group; SECTIONS is their registry."""

from __future__ import annotations

import gc

import click

from app.commands.group import Group, LazyCommands
from config.log_handler import log_to_standard_error

SECTIONS: dict[str, dict[str, str]] = {
    "Run": {
        "up": "app.commands.up:up",
        "demo": "app.commands.demo:demo",
        "doctor": "app.commands.doctor:doctor",
        "db": "app.commands.database:db",
    },
    "Look": {
        "tasks": "app.commands.tasks:tasks",
        "runs": "app.commands.runs:runs",
        "stats": "app.commands.stats:stats",
        "spend": "app.commands.spend:spend",
        "deliveries": "app.commands.deliveries:deliveries",
        "artifacts": "app.commands.artifacts:artifacts",
        "jobs": "app.commands.jobs:jobs",
        "audit": "app.commands.audit:audit",
    },
    "Datasets": {
        "datasets": "app.commands.datasets:datasets",
        "export": "app.commands.export:export",
    },
    "Decide": {
        "workflows": "app.commands.workflows:workflows",
        "backfills": "app.commands.backfills:backfills",
        "bulk-actions": "app.commands.bulk_actions:bulk_actions",
        "follow-ups": "app.commands.follow_ups:follow_ups",
        "joins": "app.commands.joins:joins",
        "creation": "app.commands.creation:creation",
    },
    "Keep and forget": {
        "purge": "app.commands.purge:purge",
        "backup": "app.commands.backup:backup",
        "restore": "app.commands.backup:restore",
    },
    "Operate": {
        "reconcile": "app.commands.reconcile:reconcile",
        "import": "app.commands.reconcile:import_files",
        "subscribers": "app.commands.subscribers:subscribers",
        "tokens": "app.commands.tokens:tokens",
        "scale": "app.commands.scale:scale",
    },
    "Develop": {
        "sandbox": "sandbox.cli:sandbox",
        "task-types": "app.commands.task_types:task_types",
    },
}
"""Title of a section of the help → its commands and where each is."""


class Commands(Group):
    """All commands, listed by section. Logs go to standard error: programs may read what a command prints."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Send logs to standard error and return the command: its output may be read by a program."""
        log_to_standard_error()
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command to run. Whatever it needs is imported: see `main` for the collection."""
        found = super().resolve_command(ctx, args)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which the commands were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands of each section of the help."""
        width = max(len(name) for name in self.commands)
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (
                            name.ljust(width),
                            self.commands[name].get_short_help_str(formatter.width - width - 6),
                        )
                        for name in names
                    ]
                )


def make_commands(name: str | None = None, help_text: str | None = None) -> Commands:
    """Return a group with every command and the hidden former names."""
    places = {name: place for section in SECTIONS.values() for name, place in section.items()}
    group = Commands(name, help=help_text, commands=LazyCommands(places))
    group.alias("creating", "creation")
    return group
