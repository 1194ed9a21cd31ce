"""The `weighbridge` command: the entry point of the console script."""

from __future__ import annotations

import gc
import platform
from typing import Any

import click
from flask import Flask
from flask.cli import ScriptInfo

from app.commands import Commands, make_commands
from config import SettingsError, load_settings
from config.log_handler import log_to_standard_error
from config.private_files import make_new_files_private
from config.version import VERSION

HELP = """Receive Scale's callbacks, store every result and create the next labeling task.

Run `weighbridge up` to start everything on this machine, and `weighbridge doctor` to check an installation.
"""


def create_application(*_: Any) -> Flask:
    """Return the application for the settings of the environment. Called by the first command that needs it."""
    # It comes with the pipeline, which `weighbridge sandbox` does not need.
    from app.bare_app import create_bare_app

    try:
        settings = load_settings(process="command")
    except SettingsError:
        settings = load_settings()  # raises it with the invalid settings of other processes, too
    app = create_bare_app(settings)
    log_to_standard_error()
    return app


def make_main() -> Commands:
    """Return the top-level command. FLASK_APP and FLASK_DEBUG have no effect: they may belong to another project."""
    script = ScriptInfo(create_app=create_application, set_debug_flag=False, load_dotenv_defaults=False)
    command = make_commands("weighbridge", HELP)
    command.context_settings["obj"] = script
    version = f"%(prog)s %(version)s (Python {platform.python_version()})"
    click.version_option(VERSION, prog_name="weighbridge", message=version)(command)
    return command


def main() -> None:
    """Run a command."""
    gc.disable()  # importing makes objects that stay; Commands switches collection on again
    make_new_files_private()
    make_main()(prog_name="weighbridge")
