"""A file that a response points to."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Artifact(Base):
    """One file that a response points to: pending → stored | failed."""

    __tablename__ = "artifacts"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    response_id: Mapped[UUID]
    task_id: Mapped[str]
    ordinal: Mapped[int]
    """1, 2, … within the response; the `file` of the annotations read from it."""
    role: Mapped[str]
    url: Mapped[str]
    state: Mapped[str] = mapped_column(String(16))
    """pending → stored | failed"""
    stored_at: Mapped[datetime | None]
    """When its content was first stored and read: dataset versions as of an earlier moment do not have it."""
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    first_attempt_at: Mapped[datetime | None]
    sha256: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    media_type: Mapped[str | None]
    path: Mapped[str | None]
    annotation_count: Mapped[int | None]
    """Rows read from it; null until it was read, or where it holds none."""
    details: Mapped[dict[str, Any] | None]
    """What was read in addition to the rows: a mask image's width, height and unlabeled pixels; global_attributes by frame."""
    reason: Mapped[str | None]
    """Why it failed or is retried, or which parts could not be parsed."""
    purged_at: Mapped[datetime | None]
    """When its content was purged from the artifact store; the rows that were read from it are a choice of their own."""

    __table_args__ = (
        UniqueConstraint("response_id", "ordinal"),
        Index("ix_artifacts_task_id", "task_id"),
        # Stored ones are nearly all: what counts the others reads them alone.
        Index(
            "ix_artifacts_state",
            "state",
            sqlite_where=text("state != 'stored'"),
            postgresql_where=text("state != 'stored'"),
        ),
        Index("ix_artifacts_sha256", "sha256"),
    )
