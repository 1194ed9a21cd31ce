"""A value that is loaded again after some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TimedCache(Generic[T]):
    """The result of `load`, at most `seconds` old. Threads may share it.

    No lock: of several threads that find the value expired each loads it, so that none waits for another one's database.
    """

    def __init__(
        self, load: Callable[[], T], seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._clock = clock
        self._cached: tuple[float, T] | None = None

    def get(self) -> T:
        """Return the cached value, loaded first if it has expired. Raises what `load` raises."""
        cached = self._cached
        if cached is None or self._clock() >= cached[0]:
            value = self._load()
            self._cached = cached = (self._clock() + self._seconds, value)
        return cached[1]
