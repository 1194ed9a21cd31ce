"""Single facts that the processes share, by key."""

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class KeyValue(Base):
    """One fact that has no table of its own."""

    __tablename__ = "key_value"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]
    count: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """For counters: what limits have granted."""
    changed_at: Mapped[datetime]
