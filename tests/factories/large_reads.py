"""A request that loads much, for tests of the others meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.db.memory_budget import FREE_READ_BYTES, charge, memory_budget


@contextmanager
def large_read_elsewhere() -> Iterator[None]:
    """Let another thread have the turn of large reads within the block."""
    has_turn, may_end = threading.Event(), threading.Event()

    def read() -> None:
        with memory_budget():
            charge(FREE_READ_BYTES + 1)
            has_turn.set()
            may_end.wait()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert has_turn.wait(10)
        yield
    finally:
        may_end.set()
        thread.join()
