"""API tokens, stored as digests."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class ApiToken(Base):
    """One token of the REST API and the console, with its scopes."""

    __tablename__ = "api_tokens"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    """sha256 of the token; the token itself is shown once and not kept."""
    scopes: Mapped[list[Any]]
    projects: Mapped[list[Any] | None]
    """What it may see and act on is limited to these projects; null: no limit."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """Not valid from then on; null: valid until it is revoked."""
    revoked_at: Mapped[datetime | None]
