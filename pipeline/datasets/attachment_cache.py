"""Copies of attachments that the console shows: fetched once by the guarded client, and cached in a folder.

An attachment that was shown once is still shown after its presigned address has expired.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path

from pipeline.datasets import images
from pipeline.service import Service

MAX_ATTACHMENT_BYTES = 512 * 1024 * 1024
"""A larger attachment is not shown."""
MAX_AGE_SECONDS = 24 * 3600.0
"""An older copy is fetched again, and used where that fails."""
MAX_CACHED_BYTES = 1024 * 1024 * 1024
"""Size of the folder from which on the copies that were used longest ago are removed."""


def cached(service: Service, address: str) -> Path:
    """Return a copy of the attachment. Raises NoImage with the reason why there is none."""
    path = _folder() / _name(service, address)
    if _is_fresh(path):
        return path
    handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    os.close(handle)
    fetched = Path(name)
    try:
        images.copy(service, address, fetched, max_bytes=MAX_ATTACHMENT_BYTES)
        fetched.replace(path)
    except images.NoImage:
        if not path.exists():
            raise
    finally:
        fetched.unlink(missing_ok=True)
    _evict(path)
    return path


def _name(service: Service, address: str) -> str:
    """Return the name of a copy: two installations on one machine share none."""
    named = f"{service.settings.database_url} {address}"
    return hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()


def _is_fresh(path: Path) -> bool:
    """Return whether there is a copy that was fetched not long ago, and record that it was used."""
    try:
        fetched_at = path.stat().st_mtime
        os.utime(path, (time.time(), fetched_at))
    except OSError:
        return False
    return time.time() - fetched_at < MAX_AGE_SECONDS


def derived(path: Path, name: str) -> Path:
    """Return the path of what is made of a copy, such as a preview. It is evicted like the copy."""
    return path.with_name(f"{path.name}.{name}")


def _folder() -> Path:
    """Return the folder: in var/ where it exists, the only writable one of a container with a read-only root."""
    root = Path("var") if Path("var").is_dir() else Path(tempfile.gettempdir())
    folder = root.absolute() / f"weighbridge-attachments-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise images.NoImage("its copy cannot be kept: the folder belongs to another user")
    return folder


def _evict(newest: Path) -> None:
    """Remove the copies that were used longest ago until the rest is small enough."""
    files = []
    for path in newest.parent.iterdir():
        with contextlib.suppress(OSError):
            files.append((path.stat().st_atime, path.stat().st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= MAX_CACHED_BYTES or path == newest:
            return
        path.unlink(missing_ok=True)
        total -= size
