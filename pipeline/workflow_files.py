"""The workflow files of a folder, loaded again when one of them changes, so that an edit needs no restart."""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path

from pipeline.timed_cache import TimedCache
from workflows.definition.document import FileProblem
from workflows.definition.loader import load
from workflows.definition.model import InvalidWorkflow, Workflows

log = logging.getLogger(__name__)

CACHE_SECONDS = 2.0

Fingerprint = list[tuple[str, int, int]]
"""(name, modification time in ns, size in bytes) of each file."""


class WorkflowFiles:
    """The workflows of one folder, at most `cache_seconds` old."""

    def __init__(self, directory: Path, cache_seconds: float = CACHE_SECONDS) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._fingerprint: Fingerprint | None = None
        self._workflows = Workflows((), ())
        self._cache = TimedCache(self._reload_if_changed, cache_seconds)

    def read(self) -> Workflows:
        """Return the workflows as the files define them now."""
        return self._cache.get()

    def _reload_if_changed(self) -> Workflows:
        with self._lock:
            if (fingerprint := self._read_fingerprint()) != self._fingerprint:
                self._workflows = self._load()
                self._fingerprint = fingerprint
                for invalid in self._workflows.invalid:
                    for problem in invalid.errors:
                        log.error("workflow file not loaded", extra={"error": str(problem)})
            return self._workflows

    def _read_fingerprint(self) -> Fingerprint:
        found = []
        for path in sorted(self.directory.glob("*.y*ml")):
            with contextlib.suppress(OSError):  # deleted just now, or an editor's link to nothing
                status = path.stat()
                found.append((path.name, status.st_mtime_ns, status.st_size))
        return found

    def _load(self) -> Workflows:
        """Load the files; report any failure as an invalid workflow, because receiving must not depend on them."""
        try:
            return load(self.directory)
        except Exception as failure:
            log.exception("could not load workflow files")
            why = f"loading failed: {type(failure).__name__}: {failure}"
            problem = FileProblem(str(self.directory), 1, "", why)
            return Workflows((), (InvalidWorkflow(str(self.directory), None, (problem,)),))
