"""Call functions later, all of them in one thread: a thread for each time-out would cost a request a tenth of its time."""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable


class Alarm:
    """A call that is due at a time of time.monotonic(), unless it is cancelled."""

    def __init__(self, due: float, call: Callable[[], object]) -> None:
        self.due = due
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Drop the call. One that has begun goes on."""
        self.call = None


class Alarms:
    """Calls what is due, one after another, in a daemon thread that the first alarm starts. Calls must not raise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._reset()
        os.register_at_fork(after_in_child=self._reset)  # a child has none of its parent's threads

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def call_later(self, seconds: float, call: Callable[[], object]) -> Alarm:
        """Have `call` called in `seconds`."""
        alarm = Alarm(time.monotonic() + seconds, call)
        with self._changed:
            heapq.heappush(self._waiting, (alarm.due, next(self._numbers), alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self._thread.start()
            elif self._waiting[0][2] is alarm:  # due before the one that the thread waits for
                self._changed.notify()
        return alarm

    def _run(self) -> None:
        while True:
            call = self._next().call
            if call is not None:
                call()

    def _next(self) -> Alarm:
        """Wait for the next alarm that is due, and remove it."""
        with self._changed:
            while not self._waiting or self._waiting[0][0] > time.monotonic():
                self._changed.wait(self._waiting[0][0] - time.monotonic() if self._waiting else None)
            return heapq.heappop(self._waiting)[2]
