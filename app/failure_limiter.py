"""Count failed attempts to authenticate by address, so that guessing is slowed down and does not fill the log."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from flask import request

log = logging.getLogger(__name__)

MAX_FAILURES = 20
"""Failed attempts of one address in a window."""
WINDOW_SECONDS = 60.0
MAX_ADDRESSES = 10_000
"""Addresses that are remembered; the least recent one is forgotten first."""


class FailureLimiter:
    """Failed attempts of each address in the current window."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def record(self, address: str) -> int:
        """Count a failed attempt and return how many there were in this window."""
        now = self._clock()
        with self._lock:
            started, number = self._failures.pop(address, (now, 0))
            if now - started > WINDOW_SECONDS:
                started, number = now, 0
            self._failures[address] = (started, number + 1)
            while len(self._failures) > MAX_ADDRESSES:
                self._failures.popitem(last=False)
            return number + 1


def record_failure(failures: FailureLimiter, credential: str) -> int:
    """Count a failed attempt of the current request's address, and return how many there were in this window.

    Only the 1st, 2nd, 4th and so on are logged, so that guessing does not fill the log.
    """
    address = request.remote_addr or "unknown"
    number = failures.record(address)
    if number & (number - 1) == 0:
        fields = {"credential": credential, "address": address, "path": request.path, "failures": number}
        log.warning("authentication failed", extra=fields)
    return number
