"""A row of work. The table is the queue of record; a job that succeeded is deleted."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Job(Base):
    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(unique=True)
    """<kind>:<subject>, so that asking for the same work twice is one row."""
    subject: Mapped[str]
    """What it works on: a delivery's id, a task_id, an artifact's id, a follow-up's unique_id …"""
    queue: Mapped[str] = mapped_column(String(8), default="", server_default="")
    """Which of pipeline/jobs/queue.py's LANES it waits in."""
    state: Mapped[str] = mapped_column(String(8))
    """ready | running (leased) | dead"""
    enqueue_count: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """How often it was asked for. A run that began before the last asking does not end the job."""
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    lost_leases: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Claims of a job whose lease had expired: its worker vanished."""
    run_at: Mapped[datetime]
    """Not before; while running, when the lease ends."""
    lease_owner: Mapped[str | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime]

    __table_args__ = (
        # Without the state: in two states at once the oldest would be sorted out of all of them.
        Index(
            "ix_jobs_due",
            "queue",
            "run_at",
            sqlite_where=text("state != 'dead'"),
            postgresql_where=text("state != 'dead'"),
        ),
        Index(
            "ix_jobs_dead", "id", sqlite_where=text("state = 'dead'"), postgresql_where=text("state = 'dead'")
        ),
    )
