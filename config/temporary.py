"""A folder for temporary files where the file system is read-only, as in hardened containers."""

import os
import tempfile
from pathlib import Path

FALLBACK = Path("var/tmp")


def ensure_temporary_folder() -> None:
    """Use `var/tmp` for temporary files, here and in child processes, if TMPDIR and the system's folders are not writable."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        FALLBACK.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.tempdir = os.environ["TMPDIR"] = str(FALLBACK.absolute())
