"""Values that are loaded again after some seconds."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class TimedCache(Generic[T]):
    """The result of `load`, at most `seconds` old. Threads may share it: those that ask during a load get what that one returns
    or raises.
    """

    def __init__(
        self, load: Callable[[], T], seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._expires_at = -math.inf
        self._value: Future[T]

    def get(self) -> T:
        """Return the cached value, loaded first if it has expired. Raises what `load` raises."""
        with self._lock:
            is_expired = self._clock() >= self._expires_at
            if is_expired:
                self._value, self._expires_at = Future(), math.inf
            value = self._value
        if is_expired:
            try:
                value.set_result(self._load())
                self._expires_at = self._clock() + self._seconds
            except BaseException as error:
                self._expires_at = -math.inf
                value.set_exception(error)
        return value.result()


class Totals:
    """Totals that read a whole table, by name. One that took long is kept KEPT_TIMES as long as it took: in a small table
    every total is exact, in a large one it is some seconds old, and a page takes about the same time in both.
    """

    KEPT_TIMES = 20.0
    SLOW_SECONDS = 0.03
    """What took less is not kept at all."""
    MAX_SECONDS = 60.0
    MAX_NAMES = 1000

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
        if took < self.SLOW_SECONDS:
            return value
        if len(self._kept) >= self.MAX_NAMES:
            self._kept.clear()
        self._kept[name] = (self._clock() + min(took * self.KEPT_TIMES, self.MAX_SECONDS), value)
        return value
