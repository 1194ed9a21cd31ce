"""Queues in order of priority, and which of them this process claims from."""

from __future__ import annotations

import time
from collections.abc import Callable

from scale.environments import ENVIRONMENTS

DEFAULT = ""
PARSE = "parse"
FETCH = "fetch"
BOUNDED = (PARSE, FETCH)
"""Queues whose jobs never occupy every worker: a large body takes seconds of processor time, an export or a slow host minutes.
A creation is in FETCH while files of its request are built."""
CREATION = ENVIRONMENTS
QUEUES = (DEFAULT, *BOUNDED, *CREATION)
"""In order of priority. Task creation has one queue for each environment, so that a large fan-out cannot delay callbacks."""


class PausedQueues:
    """Creation queues that this process skips while Scale throttles them, instead of claiming each job in vain."""

    MAX_SECONDS = 5.0
    """After this long one job is claimed again: a person may have resumed creation, or Scale may answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paused_until: dict[str, float] = {}

    def pause(self, queue: str, seconds: float) -> None:
        """Skip a creation queue for `seconds`, at most MAX_SECONDS. Other queues are never skipped."""
        if queue in CREATION:
            self._paused_until[queue] = self._clock() + min(seconds, self.MAX_SECONDS)

    def resume_all(self) -> None:
        """Claim from every queue again."""
        self._paused_until.clear()

    def runnable(self) -> tuple[str, ...]:
        """Return the queues to claim from now, in order of priority."""
        now = self._clock()
        return tuple(queue for queue in QUEUES if self._paused_until.get(queue, 0.0) <= now)
