"""What all commands share: friendly errors, aliases, and the name of the person for the audit log."""

from __future__ import annotations

import getpass
import pkgutil
from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from app.extensions import dispatcher, service


def dispatch_now(job_ids: Sequence[UUID]) -> None:
    """Publish the ids of committed jobs before returning: this process may end before a thread would."""
    if job_ids and not service().settings.embedded:
        dispatcher().publish(job_ids)


def actor() -> str:
    """Return who decides, for the audit log: the user's name on this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # containers run under ids without a name
        return "cli"


class LazyCommands(UserDict[str, click.Command]):
    """The commands of a group by name. The module of one is imported when it is asked for, so that no command waits for the others.

    places: where each command is, as "module:attribute".
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        super().__init__()
        self.data |= places  # type: ignore[arg-type]  # __getitem__ replaces each by the command

    def __getitem__(self, name: str) -> click.Command:
        found = self.data[name]
        if isinstance(found, str):
            found = self.data[name] = pkgutil.resolve_name(found)
        return found


class FriendlyErrors:
    """Print expected errors as one sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises ClickException with one sentence for errors that are foreseen."""
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # Their classes come with the database and the client of Scale, which not every command needs.
            from app.commands.errors import friendly_error

            if (friendly := friendly_error(error)) is None:
                raise
            raise friendly from error


class Command(FriendlyErrors, click.Command):
    """A single command that runs in the application's context."""


class Group(FriendlyErrors, AppGroup):
    """A group of commands that run in the application's context."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aliases: dict[str, str] = {}

    def alias(self, old: str, new: str) -> None:
        """Keep accepting a command's former name without listing it."""
        self.aliases[old] = new

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name or former name."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))
