"""Back-off for hosts that do not answer: a thousand files of one host must not occupy every worker one after another."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy import Connection

from pipeline.artifacts.rows import File
from pipeline.db.ids import utcnow
from pipeline.db.state import delete_state, get_state, set_state
from pipeline.jobs.queue import RetryLater
from pipeline.service import Service

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 15.0, 600.0
UNREACHABLE = "unreachable:"


def host_of(file: File) -> str:
    """Return the host and port of the file's URL; empty if the URL cannot be split, and is refused when it is fetched."""
    try:
        return urlsplit(file.url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def check_host_available(connection: Connection, file: File) -> None:
    """Raise RetryLater while the file's host is paused."""
    pause = get_state(connection, UNREACHABLE + host_of(file))
    if (
        pause is not None
        and (left := (datetime.fromisoformat(pause["until"]) - utcnow()).total_seconds()) > 0
    ):
        raise RetryLater(f"{host_of(file)} does not answer", left * random.uniform(1.0, 1.2))


def back_off_host(service: Service, file: File) -> None:
    """Pause the file's host, each time for twice as long, up to MAX_PAUSE_SECONDS."""
    key = UNREACHABLE + host_of(file)
    with service.engine.begin() as connection:
        known = get_state(connection, key)
        seconds = min(2 * known["seconds"], MAX_PAUSE_SECONDS) if known else FIRST_PAUSE_SECONDS
        until = (utcnow() + timedelta(seconds=seconds)).isoformat()
        set_state(connection, key, {"until": until, "seconds": seconds})


def clear_host(connection: Connection, file: File) -> None:
    """Forget the pauses of a host that has answered."""
    delete_state(connection, UNREACHABLE + host_of(file))
