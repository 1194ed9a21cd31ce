"""The `weighbridge` command: the entry point of the console script."""

from __future__ import annotations

import platform

import click
from flask import Flask
from flask.cli import ScriptInfo

from app.commands import make_commands
from config.version import VERSION

HELP = """Receive Scale's callbacks, store every result and create the next labeling task.

Run `weighbridge up` to start everything on this machine, and `weighbridge doctor` to check an installation.
"""


def create_application() -> Flask:
    """Return the application for the settings of the environment; the first command that needs it calls this."""
    from app import create_app

    return create_app()


def main() -> None:
    """Run a command."""
    command = make_commands("weighbridge", HELP)
    click.version_option(
        VERSION, prog_name="weighbridge", message=f"%(prog)s %(version)s (Python {platform.python_version()})"
    )(command)
    # Without FLASK_APP and FLASK_DEBUG: they may belong to another project.
    script = ScriptInfo(create_app=create_application, set_debug_flag=False, load_dotenv_defaults=False)
    command(prog_name="weighbridge", obj=script)


if __name__ == "__main__":
    main()
