"""Times as Scale writes and reads them. Stored as whole milliseconds since 1970, UTC."""

import re
import time
from datetime import UTC, datetime

from sandbox.errors import ScaleError


def now() -> int:
    """Return the current time in milliseconds."""
    return time.time_ns() // 1_000_000


def format_timestamp(milliseconds: int) -> str:
    """Return a time in the form of a task object's dates: `2016-06-23T09:09:34.752Z`."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str, name: str) -> float:
    """Return the milliseconds, with a fraction, of an ISO date or date-time; without an offset it is UTC.

    Raises ScaleError (400) with the parameter's name if the text is not a date.
    """
    # A plus sign that a client did not encode arrives as a space before the offset.
    text = re.sub(r" (\d\d:?\d\d)$", r"+\1", text.strip()) if "T" in text else text.strip()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ScaleError(400, f'"{name}" must be a valid ISO 8601 date') from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # timestamp() is a float of seconds, whose microseconds are exact until the year 2255.
    return round(moment.timestamp() * 1_000_000) / 1000
