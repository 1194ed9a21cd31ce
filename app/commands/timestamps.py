"""Times on the command line: a date, a time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from pipeline.db.ids import parse_timestamp

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
EXAMPLES = "2026-01-31, 2026-01-31T09:30:00Z, 2h, 7d"


class TimestampType(click.ParamType[datetime]):
    """Accept 2026-01-31, 2026-01-31T09:30:00Z (UTC without an offset), or 30m, 2h, 7d, 4w ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse a date, a timestamp or an age such as 2h into an aware timestamp. Fails for anything else."""
        if isinstance(value, datetime):
            return value
        if ago := re.fullmatch(r"(\d{1,6})([mhdw])", value):
            return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        try:
            return parse_timestamp(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time; write for example {EXAMPLES}.", param, ctx)


class FutureType(click.ParamType[datetime]):
    """Accept a moment to come: a date, a timestamp, or 30m, 2h, 90d, 4w from now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse a moment. Fails for anything else, and for one that has passed."""
        if found := re.fullmatch(r"(\d{1,6})([mhdw])", str(value)):
            return datetime.now(UTC) + timedelta(**{UNITS[found[2]]: int(found[1])})
        moment = TIMESTAMP.convert(value, param, ctx)
        if moment <= datetime.now(UTC):
            self.fail(f"{value!r} has passed.", param, ctx)
        return moment


TIMESTAMP = TimestampType()
FUTURE = FutureType()
