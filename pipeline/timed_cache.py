"""Values that are loaded again after some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

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


class Totals:
    """Totals that read a whole table, by name. Each is kept KEPT_TIMES as long as it took: at first not noticeably, in a
    large table for some seconds. So a page takes the same time in a table of any size, and most of the time a total is exact.
    """

    KEPT_TIMES = 100.0
    MAX_SECONDS = 60.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, Any]] = {}

    def get(self, name: str, load: Callable[[], T]) -> T:
        """Return the total `name`, loaded again if it has expired. Raises what `load` raises."""
        kept = self._kept.get(name)
        started = self._clock()
        if kept is not None and started < kept[0]:
            found: T = kept[1]
            return found
        value = load()
        took = self._clock() - started
        self._kept[name] = (self._clock() + min(took * self.KEPT_TIMES, self.MAX_SECONDS), value)
        return value
