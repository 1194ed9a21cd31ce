"""The sandbox's tables, and sessions to read and write them. SQLite allows one writer at a time."""

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import JSON, Connection, ForeignKey, Index, UniqueConstraint, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

LOCK_TIMEOUT_SECONDS = 5.0  # a sandbox that is shutting down releases its file within this time
SCHEMA_VERSION = 2
"""Increased when the tables change. There are no migrations: the file of another version is refused."""


class UnusableDatabase(Exception):
    """Raised when the database file cannot be opened, is in use by another sandbox, or has another schema version."""


class Base(DeclarativeBase):
    """Map JSON columns of all tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}


class Task(Base):
    """Store one task. `details` holds what no list filters by: params, metadata, response, audits and so on.

    `number` orders tasks created in the same millisecond. `attempt` counts the completions, so that the response after a
    recall differs. `complete_at` is when the annotators complete the task, `review_at` when the
    reviewer audits it; None: not by themselves.
    """

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("account", "unique_id"),
        Index("ix_tasks_account", "account", "number"),
        Index("ix_tasks_project", "account", "project", "number"),
        Index("ix_tasks_batch", "account", "batch", "number"),
    )

    number: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(unique=True)
    account: Mapped[str]
    type: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    project: Mapped[str | None]
    batch: Mapped[str | None]
    unique_id: Mapped[str | None]
    tags: Mapped[list[Any]] = mapped_column(default=list)
    review_status: Mapped[str | None]
    created_at: Mapped[int]
    updated_at: Mapped[int]
    completed_at: Mapped[int | None]
    complete_at: Mapped[int | None] = mapped_column(index=True)
    review_at: Mapped[int | None] = mapped_column(index=True)
    attempt: Mapped[int] = mapped_column(default=0)
    details: Mapped[dict[str, Any]]
    request: Mapped[dict[str, Any]] = mapped_column(deferred=True)


class Project(Base):
    """Store one project. `param_history` holds every version of its params, newest last."""

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("account", "name"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    account: Mapped[str]
    name: Mapped[str]
    type: Mapped[str]
    rapid: Mapped[bool] = mapped_column(default=False)
    studio: Mapped[bool] = mapped_column(default=False)
    dataset_id: Mapped[str | None]
    param_history: Mapped[list[Any]]
    created_at: Mapped[int]


class Batch(Base):
    """Store one batch. A `finalized` batch expects no more tasks: it completes with its last task, at `finish_at`."""

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("account", "name"),
        Index("ix_batches_account", "account", "number"),
    )

    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    account: Mapped[str]
    name: Mapped[str]
    project: Mapped[str]
    status: Mapped[str]
    callback: Mapped[str | None]
    calibration_batch: Mapped[bool] = mapped_column(default=False)
    self_label_batch: Mapped[bool] = mapped_column(default=False)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    finalized: Mapped[bool] = mapped_column(default=False)
    finish_at: Mapped[int | None] = mapped_column(index=True)
    priority: Mapped[int | None]
    studio_priority: Mapped[int | None]
    groups: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[int]
    completed_at: Mapped[int | None]


class Delivery(Base):
    """Store one callback: the `body` that every attempt sends, the faults to inject, and the outcome of each attempt.

    `state`: pending, succeeded, failed (after 20 attempts), dropped (by a fault) or mailed (to an e-mail address).
    """

    __tablename__ = "deliveries"
    __table_args__ = (Index("ix_deliveries_held", "number", sqlite_where=text("held = 1")),)

    number: Mapped[int] = mapped_column(primary_key=True)
    account: Mapped[str]
    task_id: Mapped[str | None] = mapped_column(index=True)
    batch: Mapped[str | None]
    event: Mapped[str]
    url: Mapped[str]
    body: Mapped[bytes] = mapped_column(deferred=True)
    faults: Mapped[list[Any]] = mapped_column(default=list)
    state: Mapped[str] = mapped_column(default="pending")
    held: Mapped[bool] = mapped_column(default=False)
    next_attempt_at: Mapped[int | None] = mapped_column(index=True)
    attempts: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[int]


class ReceivedCallback(Base):
    """Store a callback that the sandbox's own receiver accepted, for tests without a service."""

    __tablename__ = "received_callbacks"

    number: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes]
    received_at: Mapped[int]


class StoredFile(Base):
    """Store a result file or an upload. An import has no `content` but a `url`; it is not downloaded on import."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str | None]
    media_type: Mapped[str]
    content: Mapped[bytes | None] = mapped_column(deferred=True)
    size: Mapped[int | None]
    url: Mapped[str | None]
    project_names: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[int]


class QualityTask(Base):
    """Store an evaluation or training task of a self-serve project."""

    __tablename__ = "quality_tasks"

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str]
    kind: Mapped[str]
    type: Mapped[str]
    document: Mapped[dict[str, Any]]
    created_at: Mapped[int]


class Teammate(Base):
    """Store a member of an account's team and the Studio projects assigned to them."""

    __tablename__ = "teammates"

    account: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str]
    role: Mapped[str]
    projects: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[int]


class Group(Base):
    """Store a group of labelers in a Studio project."""

    __tablename__ = "groups"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    emails: Mapped[list[Any]]
    created_at: Mapped[int]


class State(Base):
    """Store state that can change while the sandbox runs and survives a restart, such as fault rules."""

    __tablename__ = "state"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]


def object_id() -> str:
    """Return 24 lower-case hexadecimal digits that begin with the time, like Scale's ids."""
    return f"{int(time.time()):08x}{secrets.token_hex(8)}"


class Store:
    """Open the database of one sandbox; `path` None keeps it in memory. One process uses a file at a time."""

    def __init__(self, path: Path | None) -> None:
        """Create the file, its folder and its tables if needed. Raises UnusableDatabase."""
        self.path = path
        self._write_lock = threading.RLock()
        if path is None:
            # All threads share one connection, so readers take turns, too.
            url = "sqlite://"
            pool: dict[str, Any] = {"poolclass": StaticPool}
            self._read_lock: contextlib.AbstractContextManager[Any] = self._write_lock
        else:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise UnusableDatabase(f"Cannot create the folder {path.parent}: {error.strerror}.") from None
            _create_private(path)
            self._file_lock = _lock_file(path)
            url, pool = f"sqlite:///{path}", {"pool_size": 20, "max_overflow": 40}
            self._read_lock = contextlib.nullcontext()
        self._engine = create_engine(
            url,
            connect_args={"check_same_thread": False, "timeout": 5, "isolation_level": None},
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
            **pool,
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(writing=True)
        try:
            with self._writer.begin() as connection:
                version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
                if version not in (0, SCHEMA_VERSION):
                    raise UnusableDatabase(
                        f"{path} belongs to another version of the sandbox. Delete it or choose another file with --database."
                    )
                Base.metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except DatabaseError as error:
            raise UnusableDatabase(f"Cannot use {path} as the sandbox's database: {error.orig}.") from None

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Open a session for reading."""
        with self._read_lock, Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """Open a write transaction and commit it at the end. It blocks other writers: make no network calls in it."""
        with self._write_lock, Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def delete_all(self) -> None:
        """Delete every row of every table."""
        with self.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())

    def close(self) -> None:
        """Close the connections and release the file."""
        self._engine.dispose()
        if self.path is not None:
            self._file_lock.close()


def _create_private(path: Path) -> None:
    """Create the files for this user alone; SQLite gives its journals the mode of the database."""
    for file in (path, path.with_name(f"{path.name}.lock")):
        with contextlib.suppress(OSError):  # reported when SQLite opens it
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            file.chmod(0o600)


def _lock_file(path: Path) -> sqlite3.Connection:
    """Lock a database file until the connection or the process ends: two sandboxes would send every callback twice."""
    try:
        lock = sqlite3.connect(
            f"{path}.lock", timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise UnusableDatabase(
                f"{path} is in use by another sandbox. Stop that one or choose another file with --database."
            ) from None
        raise UnusableDatabase(f"Cannot lock {path}.lock: {error}.") from None
    return lock


def _prepare(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA temp_store = MEMORY")  # /tmp may be read-only


def _begin(connection: Connection) -> None:
    # The driver begins a transaction late; a reader that becomes a writer then fails at once with "locked".
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
