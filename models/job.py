"""A row of work. The table is the queue of record; a job that succeeded is deleted."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Job(Base):
    """One piece of work: ready, running (leased) or dead. A job that succeeded is deleted."""

    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    key: Mapped[str] = mapped_column(unique=True)
    """<kind>:<subject>, so that the same work is one row however often it is enqueued."""
    subject: Mapped[str]
    """Id of what it works on; which one depends on the kind, see pipeline/jobs/kinds.py."""
    queue: Mapped[str] = mapped_column(String(8), default="", server_default="")
    """Which of pipeline/jobs/queues.py's QUEUES it waits in."""
    state: Mapped[str] = mapped_column(String(8))
    """ready | running (leased) | dead"""
    enqueue_count: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    """Number of times the job was enqueued. If it grows during a run, the job runs once more."""
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    lost_leases: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Number of claims after a lease had expired, that is of lost workers."""
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
