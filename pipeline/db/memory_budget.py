"""Bounds the memory that one request takes for what it loads from the database.

Stored JSON may come from an attacker: a parsed `{}` takes 24 bytes for each of its characters. So a JSON text is charged by the
memory of the value, before it is parsed. Workers and commands have no budget.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_READ_BYTES = 128 * 1024 * 1024
"""Memory that the values of one request may take, rather estimated too high than too low."""
FREE_READ_BYTES = 16 * 1024 * 1024
"""A request that loads more waits for its turn: a process serves one of them at a time."""
TURN_TIMEOUT_SECONDS = 5.0
MAX_WAITING = 2
"""Requests that wait for their turn, each with a thread and often with a connection to the database."""

SIGN_BYTES = 50
"""Memory for each brace, bracket, comma and colon of a JSON text: each begins or ends a value."""
_SIGNS = b"{}[],:"


class ReadTooLarge(Exception):
    """Raised before a request would exceed MAX_READ_BYTES."""


class ReadersBusy(Exception):
    """Raised when the turn of a large read does not come within TURN_TIMEOUT_SECONDS, or MAX_WAITING wait already."""


class _Budget:
    """What one request has loaded."""

    def __init__(self) -> None:
        self.used = 0
        self.has_turn = False

    def charge(self, size: int) -> None:
        self.used += size
        if self.used > MAX_READ_BYTES:
            raise ReadTooLarge
        if self.used > FREE_READ_BYTES and not self.has_turn:
            self._take_turn()

    def _take_turn(self) -> None:
        if not _waiting.acquire(blocking=False):
            raise ReadersBusy
        try:
            self.has_turn = _turn.acquire(timeout=TURN_TIMEOUT_SECONDS)
        finally:
            _waiting.release()
        if not self.has_turn:
            raise ReadersBusy

    def give_back(self, used: int) -> None:
        """Return to what was used before, and leave the turn to others if that is little."""
        self.used = used
        if self.has_turn and used <= FREE_READ_BYTES:
            self.has_turn = False
            _turn.release()


_turn = threading.Lock()
_waiting = threading.BoundedSemaphore(MAX_WAITING)
_CURRENT: ContextVar[_Budget | None] = ContextVar("memory_budget", default=None)


@contextmanager
def memory_budget() -> Iterator[None]:
    """Bound what this thread loads within the block. Inside, reads raise ReadTooLarge and ReadersBusy."""
    budget = _Budget()
    token = _CURRENT.set(budget)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        budget.give_back(0)


@contextmanager
def temporary_reads() -> Iterator[None]:
    """Give back at the end of the block what it has charged, because it keeps none of the values."""
    budget = _CURRENT.get()
    used = budget.used if budget else 0
    try:
        yield
    finally:
        if budget:
            budget.give_back(used)


def is_bounded() -> bool:
    """Return whether this thread serves a request with a budget."""
    return _CURRENT.get() is not None


def charge(size: int) -> None:
    """Charge the request of this thread for `size` bytes that it is about to load. Raises ReadTooLarge and ReadersBusy."""
    if (budget := _CURRENT.get()) is not None:
        budget.charge(size)


def charge_parsing(text: str | bytes, sign_bytes: int = SIGN_BYTES) -> None:
    """Charge the request of this thread for a JSON text and its value, before it is parsed. Raises ReadTooLarge and ReadersBusy."""
    if (budget := _CURRENT.get()) is not None:
        budget.charge(2 * sys.getsizeof(text))  # the text, and its characters in the value
        counted = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        budget.charge(sign_bytes * (len(counted) - len(counted.translate(None, _SIGNS))))
