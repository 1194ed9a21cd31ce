"""Reads files that a workflow author names: regular files below one folder, up to a size. Never waits for a FIFO or a device."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular_file(path: Path, folder: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file below `folder`. ValueError or OSError say why it cannot be read.

    Symbolic links are followed as far as they stay below the folder, as those of a mounted Kubernetes ConfigMap do.
    """
    real = Path(os.path.realpath(path, strict=True))  # Path.resolve raises RuntimeError for a link to itself
    if not real.is_relative_to(folder.resolve()):
        raise ValueError(f"is outside of the folder {folder}")
    if not stat.S_ISREG(real.stat().st_mode):
        raise ValueError("is not a regular file")
    descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # replaced since the check above
            raise ValueError("is not a regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"is larger than {max_bytes:,} bytes")
    return content


def is_absent(path: Path) -> bool:
    """Return whether there is nothing of this name. A link to nothing, or a folder that may not be read, is a mistake instead."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False
