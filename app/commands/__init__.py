"""`flask …`: what a person does with the service from a terminal. One file a group; this is their one registry."""

from __future__ import annotations

from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup

from app.commands.artifacts import artifacts
from app.commands.creation import creating
from app.commands.database import db
from app.commands.deliveries import deliveries
from app.commands.demo import demo
from app.commands.doctor import doctor
from app.commands.follow_ups import follow_ups
from app.commands.jobs import jobs
from app.commands.reconcile import import_files, reconcile
from app.commands.scale import scale
from app.commands.subscribers import subscribers
from app.commands.task_types import task_types
from app.commands.tasks import tasks
from app.commands.tokens import tokens
from app.commands.up import up
from app.commands.workflows import workflows
from config.logging import log_to_standard_error
from sandbox.cli import sandbox

COMMANDS: tuple[click.Command, ...] = (
    up, demo, doctor, db, deliveries, artifacts, reconcile, import_files, tasks, task_types, workflows, follow_ups,
    creating, subscribers, jobs, tokens, scale, sandbox,
)  # fmt: skip


def register(app: Flask) -> None:
    """Give the application its commands."""
    app.cli = Commands()
    for command in COMMANDS:
        app.cli.add_command(command)


class Commands(AppGroup):
    """The commands. Logs go to standard error while one runs: what it prints may be read by a program."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        log_to_standard_error()
        return super().get_command(ctx, name)

    def list_commands(self, ctx: click.Context) -> list[Any]:
        return list(self.commands)
