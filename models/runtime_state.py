"""Runtime state that the processes share: heartbeats, pauses, rate limits and spend counters, one table for each kind."""

from datetime import datetime

from sqlalchemy import BigInteger, String, text
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class WorkerHeartbeat(Base):
    """One worker process, and when it last reported by the database's clock."""

    __tablename__ = "worker_heartbeats"

    worker: Mapped[str] = mapped_column(primary_key=True)
    """<host>:<pid>"""
    pid: Mapped[int]
    last_seen_at: Mapped[datetime]


class WorkflowPause(Base):
    """A workflow that a person paused. While the row exists the workflow plans nothing."""

    __tablename__ = "workflow_pauses"

    workflow: Mapped[str] = mapped_column(primary_key=True)
    paused_by: Mapped[str]
    paused_at: Mapped[datetime]


class WorkflowSeen(Base):
    """A step of a workflow file, and from when on it applies. Results that were received before are not its business."""

    __tablename__ = "workflows_seen"

    workflow: Mapped[str] = mapped_column(primary_key=True)
    """The workflow's name; the path of a file that was never valid."""
    step: Mapped[str] = mapped_column(primary_key=True)
    """Empty for the path of a file."""
    active_from: Mapped[datetime]


class CreationPause(Base):
    """An environment in which a person paused the creation of tasks at Scale."""

    __tablename__ = "creation_pauses"

    environment: Mapped[str] = mapped_column(String(8), primary_key=True)
    """live | test"""
    paused_by: Mapped[str]
    paused_at: Mapped[datetime]
    reason: Mapped[str | None]
    """The fault that paused it, and what to do; null if a person paused it."""


class MissedTask(Base):
    """A task that a paused workflow, or an invalid workflow file, did not plan. It is planned when the cause is gone."""

    __tablename__ = "missed_tasks"

    source: Mapped[str] = mapped_column(String(8), primary_key=True)
    """workflow | file"""
    name: Mapped[str] = mapped_column(primary_key=True)
    """The workflow's name, or the file's path."""
    task_id: Mapped[str] = mapped_column(primary_key=True)
    missed_at: Mapped[datetime]


class RateLimit(Base):
    """A remote side that asked to be called less often, or does not answer: no calls to it before `until`."""

    __tablename__ = "rate_limits"

    scope: Mapped[str] = mapped_column(primary_key=True)
    """scale:<environment> for the creation of tasks, host:<host> for result files."""
    until: Mapped[datetime]
    seconds: Mapped[int]
    """The pause that `until` was computed from: the base of the next, longer one."""
    reason: Mapped[str]
    changed_at: Mapped[datetime]


class SpendCounter(Base):
    """What a limit has granted so far. The row is locked while it is compared with the limit."""

    __tablename__ = "spend_counters"

    counter: Mapped[str] = mapped_column(primary_key=True)
    """What the limit counts: a workflow, one step of it, or * for everything; `<that>/<currency>` counts money."""
    period: Mapped[str] = mapped_column(String(10), primary_key=True)
    """The UTC day as YYYY-MM-DD, or `total`."""
    granted: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    """Tasks, or millionths of the currency."""
    changed_at: Mapped[datetime]
