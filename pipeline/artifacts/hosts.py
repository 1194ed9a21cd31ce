"""Back-off for hosts that do not answer: a thousand files of one host must not occupy every worker one after another."""

from __future__ import annotations

from urllib.parse import urlsplit

from sqlalchemy import Connection

from pipeline.artifacts.rows import File
from pipeline.jobs.rate_limits import back_off, check_rate_limit, clear_rate_limit


def host_of(file: File) -> str:
    """Return the host and port of the file's URL; empty if the URL cannot be split, and is refused when it is fetched."""
    try:
        return urlsplit(file.url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def check_host_available(connection: Connection, file: File) -> None:
    """Raise RetryLater while the file's host is paused."""
    check_rate_limit(connection, _scope(file))


def back_off_host(connection: Connection, file: File) -> None:
    """Pause the file's host, each time for twice as long."""
    back_off(connection, _scope(file), f"{host_of(file)} does not answer")


def clear_host(connection: Connection, file: File) -> None:
    """Forget the pauses of a host that has answered."""
    clear_rate_limit(connection, _scope(file))


def _scope(file: File) -> str:
    return f"host:{host_of(file)}"
