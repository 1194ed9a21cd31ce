"""An outbound webhook: who wants to hear of which events."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Subscriber(Base):
    __tablename__ = "subscribers"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    url: Mapped[str]
    events: Mapped[list[Any]]
    secret: Mapped[str]
    """Standard Webhooks secret, whsec_…: it signs, so it is kept as it is."""
    enabled: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    created_at: Mapped[datetime]
