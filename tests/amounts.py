"""How much the tests do whose strength is in numbers: kills, bursts, generated cases."""

import os

IS_FULL = os.environ.get("FULL_AMOUNTS") == "1"


def amount(usual: int, full: int) -> int:
    """Return `usual`, or with FULL_AMOUNTS=1, as `make faults` sets it, `full`."""
    return full if IS_FULL else usual
