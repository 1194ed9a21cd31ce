"""The variables of this process: the environment and the `.env` file of the folder it was started in.

A `.env` file of a parent folder belongs to another project and is never read.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

ENV_FILE = Path(".env")
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


def own_environment() -> dict[str, str]:
    """Return the environment of this process over the variables of `.env`. Raises EnvFileError."""
    return {**read_env_file(), **os.environ}


def export_store_variables(environment: Mapping[str, str]) -> None:
    """Make the AWS variables of `.env` visible to the S3 client, which reads them from the process."""
    for name, value in environment.items():
        if name.startswith(STORE_VARIABLES):
            os.environ.setdefault(name, value)
