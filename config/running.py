"""The settings of the service that `weighbridge up` runs in this folder, for the commands that are started next to it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

RUNNING = Path("var/running.json")
"""Locked by `weighbridge up` while it runs. Its content counts only while it is locked."""


class AlreadyRunning(Exception):
    """Raised when `weighbridge up` already runs in this folder."""


def running_settings() -> dict[str, str]:
    """Return the settings of the service that runs in this folder; empty if none does."""
    try:
        with RUNNING.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # `weighbridge up` holds the lock
        with contextlib.suppress(ValueError):  # it is writing the file
            return dict(json.loads(RUNNING.read_text()))
    except OSError:
        pass
    return {}


@contextlib.contextmanager
def publish_settings(settings: Mapping[str, str]) -> Iterator[None]:
    """Let running_settings() return `settings` until the block ends. Raises AlreadyRunning."""
    secure_folder(RUNNING.parent)
    with os.fdopen(os.open(RUNNING, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning from None
        file.truncate()
        json.dump(dict(settings), file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def secure_folder(folder: Path) -> None:
    """Create `folder`, or change it, so that only this user can read it. It holds results and secrets."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for file in folder.iterdir():
        if file.is_file() and not file.is_symlink():
            file.chmod(0o600)
