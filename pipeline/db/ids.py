"""Ids and timestamps of rows."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import uuid_utils.compat


def new_id() -> UUID:
    """Return a UUIDv7, which sorts by its time of creation."""
    return uuid_utils.compat.uuid7()


def utcnow() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)


def format_timestamp(moment: datetime, precision: str = "milliseconds") -> str:
    """Return the time in UTC with `Z`, as ISO 8601. precision: milliseconds or microseconds."""
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime:
    """Parse a date or a time in ISO 8601, which is UTC without an offset. Return it in UTC.

    Raises TypeError, ValueError and OverflowError.
    """
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def created_at(identifier: UUID) -> datetime:
    """Return the time of creation of a UUIDv7, to the millisecond."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC)


def first_id_at(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 of a millisecond: ids from then on are not smaller."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
