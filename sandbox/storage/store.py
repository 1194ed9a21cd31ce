"""The sandbox's own tables, and the two ways to them: `read()` and `write()`, one writer at a time."""

import contextlib
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

CLAIM_SECONDS = 5.0  # for one that is just ending
LAYOUT = 1
"""Counted up when the tables change: nothing in a sandbox is worth a migration."""


class UnusableFile(Exception):
    """The file can't be had, is another sandbox's, is no database, or holds tables of another version."""


class Table(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}


class Task(Table):
    """One task. `details` holds what no list is filtered by: params, metadata, response, audits and the rest.

    `number` breaks the ties of tasks made within one millisecond. `rounds` counts the answers, so that the answer after a
    recall is another one. `answer_at` is when the annotators will be done; None: never by themselves.
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
    answer_at: Mapped[int | None] = mapped_column(index=True)
    rounds: Mapped[int] = mapped_column(default=0)
    details: Mapped[dict[str, Any]]
    request: Mapped[dict[str, Any]] = mapped_column(deferred=True)


class Project(Table):
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


class Batch(Table):
    """One batch. `finalized` says that no more tasks are expected: it finishes when its last task is done."""

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


class Delivery(Table):
    """One callback on its way. `body` is what every try sends; `faults` is what goes wrong with it, `tries` what came of each.

    `state`: pending, succeeded, failed (20 tries were in vain), dropped (a fault) or mailed (the address is an e-mail's).
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
    next_try_at: Mapped[int | None] = mapped_column(index=True)
    tries: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[int]


class Received(Table):
    """A callback that the sandbox's own receiver took, for tests that have no service yet."""

    __tablename__ = "received"

    number: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes]
    received_at: Mapped[int]


class StoredFile(Table):
    """A result file or an upload. `content` is None for an import, which is never fetched; `url` says where it lies."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str | None]
    media_type: Mapped[str]
    content: Mapped[bytes | None] = mapped_column(deferred=True)
    size: Mapped[int | None]
    url: Mapped[str | None]
    project_names: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[int]


class QualityTask(Table):
    """An evaluation or a training task of a self-serve project."""

    __tablename__ = "quality_tasks"

    id: Mapped[str] = mapped_column(primary_key=True)
    account: Mapped[str]
    kind: Mapped[str]
    type: Mapped[str]
    document: Mapped[dict[str, Any]]
    created_at: Mapped[int]


class Teammate(Table):
    __tablename__ = "teammates"

    account: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str]
    role: Mapped[str]
    projects: Mapped[list[Any]] = mapped_column(default=list)
    created_at: Mapped[int]


class Group(Table):
    """A group of labelers in a Studio project."""

    __tablename__ = "groups"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    emails: Mapped[list[Any]]
    created_at: Mapped[int]


class State(Table):
    """What can be switched while the sandbox runs, so that a restart keeps it."""

    __tablename__ = "state"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[dict[str, Any]]


def object_id() -> str:
    """24 lower-case hexadecimal digits that begin with the time, like Scale's own."""
    return f"{int(time.time()):08x}{secrets.token_hex(8)}"


class Store:
    """The database of one sandbox; `path` None keeps it in memory. One process uses it at a time."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._write_lock = threading.RLock()
        if path is None:
            # One connection for all threads, which therefore take turns also when they only read.
            where, pool = "sqlite://", {"poolclass": StaticPool}
            self._read_lock: contextlib.AbstractContextManager[Any] = self._write_lock
        else:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UnusableFile(f"{path.parent} can't be made: {error.strerror}.") from None
            self._claim = _claim(path)
            where, pool = f"sqlite:///{path}", {"pool_size": 20, "max_overflow": 40}
            self._read_lock = contextlib.nullcontext()
        self._engine = create_engine(
            where,
            connect_args={"check_same_thread": False, "timeout": 5, "isolation_level": None},
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
            **pool,
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        self._writing = self._engine.execution_options(writing=True)
        try:
            with self._writing.begin() as connection:
                made_by = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
                if made_by not in (0, LAYOUT):
                    raise UnusableFile(
                        f"{path} was made by another version of the sandbox. Delete it, or name another file."
                    )
                Table.metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {LAYOUT}")
        except DatabaseError as error:
            raise UnusableFile(f"{path} can't be used: {error.orig}.") from None

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        with self._read_lock, Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, committed at the end; nothing else writes meanwhile, so keep the network out of it."""
        with self._write_lock, Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def empty(self) -> None:
        """Forget everything."""
        with self.write() as session:
            for table in reversed(Table.metadata.sorted_tables):
                session.execute(table.delete())

    def close(self) -> None:
        self._engine.dispose()
        if self.path is not None:
            self._claim.close()


def _claim(path: Path) -> sqlite3.Connection:
    """A lock that lasts as long as its connection, or the process: two sandboxes on one file would call back twice."""
    try:
        claim = sqlite3.connect(
            f"{path}.lock", timeout=CLAIM_SECONDS, isolation_level=None, check_same_thread=False
        )
        claim.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise UnusableFile(f"{path} is another sandbox's. Stop that one, or name another file.") from None
        raise UnusableFile(f"{path}.lock can't be used: {error}.") from None
    return claim


def _prepare(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA busy_timeout = 5000")


def _begin(connection: Connection) -> None:
    # The driver itself would begin late, and a reader that turns writer half-way fails at once with "locked".
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
