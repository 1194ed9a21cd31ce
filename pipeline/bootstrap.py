"""What a process keeps of memory that it no longer uses."""

from __future__ import annotations

import ctypes

LARGE_BYTES = 1024 * 1024
_M_MMAP_THRESHOLD = -3  # malloc.h of glibc


def configure_malloc() -> None:
    """Let blocks of LARGE_BYTES and more be mapped each by itself, and unmapped when they are freed.

    Left alone, glibc puts later blocks of the size of one freed so far into its heap instead, where whatever small
    stands behind them keeps them: each large body would leave the process larger than the one before. Does nothing
    where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
