"""The workflow files, the price list and the limits, loaded again when one of them changes, so that an edit needs no restart.

They are loaded in a thread of its own: whatever a file contains, callbacks are received while it is read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from workflows.definition.document import FileProblem
from workflows.definition.installation import load_limits, load_prices
from workflows.definition.loader import load
from workflows.definition.model import InstallationLimits, InvalidWorkflow, Workflows
from workflows.definition.money import Prices

log = logging.getLogger(__name__)

CACHE_SECONDS = 2.0
FIRST_LOAD_TIMEOUT_SECONDS = 2.0
"""How long the first reader waits. After it, and until the files are loaded, every result counts as one that a workflow matches."""

Fingerprint = list[tuple[str, int, int]]
"""(path, modification time in ns, size in bytes) of each file."""


class WorkflowFiles:
    """The workflows of some folders. With `cache_seconds` 0 they are read at each call; else by a thread, and the last
    ones are returned meanwhile."""

    def __init__(
        self,
        folders: Sequence[Path],
        cache_seconds: float = CACHE_SECONDS,
        python_modules: Collection[str] = (),
        prices_file: Path | None = None,
        limits_file: Path | None = None,
    ) -> None:
        self.folders = folders
        self.prices_file = prices_file
        self.limits_file = limits_file
        self._cache_seconds = cache_seconds
        self._python_modules = python_modules
        self._fingerprint: Fingerprint | None = None
        self._workflows: Workflows | None = None
        self._checked_at = float("-inf")
        self._after_fork()

    def _after_fork(self) -> None:
        """Forget the thread and the locks of the parent process."""
        self._pid = os.getpid()
        self._load_lock = threading.Lock()
        self._start_lock = threading.Lock()
        self._loaded = threading.Event()
        self._is_loading = False
        if self._workflows is not None:
            self._loaded.set()

    def read(self) -> Workflows:
        """Return the workflows as the files defined them at most `cache_seconds` ago, or as they were loaded last."""
        if self._cache_seconds == 0:
            return self._reload_if_changed()
        if time.monotonic() - self._checked_at >= self._cache_seconds:
            self._start_loading()
        if self._workflows is None:
            self._loaded.wait(FIRST_LOAD_TIMEOUT_SECONDS)
        return self._workflows or self._failed("the workflow files are still being loaded")

    def _start_loading(self) -> None:
        if self._pid != os.getpid():
            self._after_fork()
        with self._start_lock:
            if self._is_loading:
                return
            self._is_loading = True
        try:
            threading.Thread(target=self._load_in_background, name="workflow-files", daemon=True).start()
        except RuntimeError as failure:  # no more threads: receiving goes on with what was loaded last
            self._is_loading = False
            log.error("could not start loading workflow files", extra={"error": str(failure)})

    def _load_in_background(self) -> None:
        try:
            self._reload_if_changed()
        finally:
            self._checked_at = time.monotonic()
            self._is_loading = False
            self._loaded.set()

    def _reload_if_changed(self) -> Workflows:
        with self._load_lock:
            if (fingerprint := self._read_fingerprint()) != self._fingerprint or self._workflows is None:
                self._workflows = self._load()
                self._fingerprint = fingerprint
                for invalid in self._workflows.invalid:
                    for problem in invalid.errors:
                        log.error("workflow file not loaded", extra={"error": str(problem)})
                for problem in (*self._workflows.prices.problems, *self._workflows.limits.problems):
                    log.error("file not loaded", extra={"error": str(problem)})
            return self._workflows

    def _read_fingerprint(self) -> Fingerprint:
        found = []
        paths = [path for folder in self.folders for path in sorted(folder.glob("*.y*ml"))]
        for path in [*paths, *filter(None, (self.prices_file, self.limits_file))]:
            with contextlib.suppress(OSError):  # deleted just now, or an editor's link to nothing
                status = path.stat()
                found.append((str(path), status.st_mtime_ns, status.st_size))
        return found

    def _load(self) -> Workflows:
        """Load the files; report any failure as an invalid workflow, because receiving must not depend on them."""
        try:
            loaded = load(*self.folders, python_modules=self._python_modules, previous=self._workflows)
            return replace(
                loaded,
                prices=load_prices(self.prices_file) if self.prices_file else Prices(),
                limits=load_limits(self.limits_file) if self.limits_file else InstallationLimits(),
            )
        except Exception as failure:
            log.exception("could not load workflow files")
            return self._failed(f"loading failed: {type(failure).__name__}: {failure}")

    def _failed(self, why: str) -> Workflows:
        folder = str(self.folders[0])
        problems = (FileProblem(folder, 1, "", why),)
        # As long as the limits are unknown nothing is created, also no task that is submitted.
        unknown = InstallationLimits(problems=problems)
        return Workflows((), (InvalidWorkflow(folder, None, problems),), limits=unknown)
