"""Fields that the schemas of several resources have."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from marshmallow import ValidationError, fields
from marshmallow.validate import OneOf

from pipeline.db.ids import format_timestamp, parse_timestamp
from scale.environments import ENVIRONMENTS


class Timestamp(fields.DateTime):
    """A time in UTC with milliseconds and `Z`."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format_timestamp(value)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        try:
            return parse_timestamp(value)
        except (TypeError, ValueError, OverflowError):
            raise ValidationError("Takes a time such as 2026-01-31T09:30:00Z.") from None


def environment_field(**options: Any) -> fields.String:
    """Return a field that takes `live` or `test`."""
    return fields.String(validate=OneOf(ENVIRONMENTS), **options)
