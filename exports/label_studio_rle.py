"""Label Studio's run lengths of a brush: bits of the RGBA pixels, row by row.

Layout, most significant bit first: 32 bits number of bytes, 5 bits word size - 1, four times 4 bits run size - 1; then
runs of 1 bit "all bytes are equal", 2 bits which of the run sizes, the length - 1 in that many bits, and the byte.
Source: label-studio-sdk, converter/brush.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RUN_BITS = (3, 4, 8, 16)
WORD_BITS = 8
CHANNELS = 4
MAX_RUN = 2**16


def encode(pixels: NDArray[np.uint8]) -> list[int]:
    """Return a mask (rows of 0 and 1) as the bytes that a brush region holds; inside is 255 in all four channels."""
    flat = pixels.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate(([0], changes))
    lengths = np.diff(np.concatenate((starts, [len(flat)])))
    bits = [f"{len(flat) * CHANNELS:032b}", f"{WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        bits += _run(length * CHANNELS, 255 if flat[start] else 0)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _run(length: int, value: int) -> list[str]:
    """Return one run as bits; a long one in several parts."""
    parts = []
    while length:
        part = min(length, MAX_RUN)
        choice = next(position for position, size in enumerate(RUN_BITS) if part <= 1 << size)
        parts.append(f"1{choice:02b}{part - 1:0{RUN_BITS[choice]}b}{value:08b}")
        length -= part
    return parts
