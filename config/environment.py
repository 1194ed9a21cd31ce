"""The variables of this process: the environment and the `.env` file of the folder it was started in.

A `.env` file of a parent folder belongs to another project and has no effect. The `flask` command reads the nearest one
before any code of ours runs; what it added is left out again.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values, find_dotenv

ENV_FILE = Path(".env")
FLASK_FILES = (".flaskenv", ".env")
"""Files that the `flask` command reads. Source: Flask's documentation, "Environment Variables From dotenv"."""
STORE_VARIABLES = "AWS_"
"""Prefix of the variables that the S3 client reads by itself."""


class EnvFileError(Exception):
    """Raised when the `.env` file cannot be read. The message says why and what to do."""


def read_env_file() -> dict[str, str]:
    """Return the variables of `.env` in the current folder; empty without one. Raises EnvFileError."""
    try:
        if not ENV_FILE.exists():
            return {}
        if ENV_FILE.is_dir():
            raise EnvFileError(".env is a folder; replace it by a file.")
        values = dotenv_values(ENV_FILE, encoding="utf-8-sig", interpolate=False)
    except UnicodeDecodeError:
        raise EnvFileError(".env is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise EnvFileError(f".env cannot be read: {error.strerror}; correct its permissions.") from None
    return {name: value for name, value in values.items() if value is not None}


def process_environment() -> dict[str, str]:
    """Return the variables that this process was started with, without those that `flask` added from its files."""
    variables = dict(os.environ)
    if os.environ.get("FLASK_RUN_FROM_CLI") != "true":
        return variables
    before, added = _variables_at_start(), _variables_of_flask_files()
    return {
        name: value for name, value in variables.items() if name in before or added.get(name, "") != value
    }


def _variables_at_start() -> set[str]:
    """Return the names of the variables that the system gave this process; empty where it cannot be asked."""
    try:
        block = Path("/proc/self/environ").read_bytes()
    except OSError:
        return set()
    return {os.fsdecode(entry.partition(b"=")[0]) for entry in block.split(b"\0") if entry}


def _variables_of_flask_files() -> dict[str, str]:
    """Return the variables of the files that Flask looks for in this folder and those above it."""
    found: dict[str, str] = {}
    for name in FLASK_FILES:
        if path := find_dotenv(name, usecwd=True):
            values = dotenv_values(path, encoding="utf-8")
            found |= {key: value for key, value in values.items() if value is not None}
    return found


def own_environment() -> dict[str, str]:
    """Return the environment of this process over the variables of `.env`. Raises EnvFileError."""
    return {**read_env_file(), **process_environment()}


def export_store_variables(environment: Mapping[str, str]) -> None:
    """Make the AWS variables of `.env` visible to the S3 client, which reads them from the process."""
    for name, value in environment.items():
        if name.startswith(STORE_VARIABLES):
            os.environ.setdefault(name, value)
