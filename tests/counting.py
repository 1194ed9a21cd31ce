"""Count function calls: a measure of work that no load of the machine changes."""

import sys
from collections.abc import Callable


def calls(function: Callable[[], object]) -> int:
    """Return how many functions, of Python or C, are called by `function`."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count
