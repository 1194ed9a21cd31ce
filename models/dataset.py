"""Dataset versions: fixed lists of (task, response version, split), and what names them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class Dataset(Base):
    """A name. It outlives its versions, so that neither a version number nor a class id is ever used twice."""

    __tablename__ = "datasets"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    latest_version: Mapped[int]
    classes: Mapped[list[Any]]
    """Label names in the order of their ids. Later versions append."""
    excluded_labels: Mapped[list[Any]]
    """Labels that were known and left out when the classes were last given as a list."""
    created_at: Mapped[datetime]


class DatasetVersion(Base):
    """One version of a dataset: what chose its members, and its counts. The members are DatasetItem rows."""

    __tablename__ = "dataset_versions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(100))
    """Null: the tasks of one export that names no dataset."""
    version: Mapped[int | None]
    digest: Mapped[str] = mapped_column(String(64))
    """sha256 over the members, their splits and the classes."""
    filters: Mapped[dict[str, Any]]
    as_of: Mapped[datetime]
    """Deliveries received later were not looked at."""
    shares: Mapped[list[Any] | None]
    """[name, share] of each split, in the order that decides; null: every task is in `train`."""
    split_by: Mapped[str]
    """task | attachment | lineage | metadata.KEY"""
    classes: Mapped[list[Any]]
    counts: Mapped[dict[str, Any]]
    """{tasks, annotations: {total, by_type, by_label}, splits, incomplete}"""
    damage: Mapped[str | None]
    """Why members are gone; null while the version has all of them."""
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("name", "version"),)


class DatasetItem(Base):
    """One member. What a later delivery may change about its task or its response is kept here as it was."""

    __tablename__ = "dataset_items"

    version_id: Mapped[UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """0, 1, … in the order of the task_ids' code points, whatever the collation of the database."""
    task_id: Mapped[str]
    response_id: Mapped[UUID]
    response_number: Mapped[int]
    delivery_id: Mapped[UUID | None]
    """The delivery that described the task; null where none did."""
    status: Mapped[str | None]
    split: Mapped[str] = mapped_column(String(64))

    __table_args__ = (Index("ix_dataset_items_task_id", "task_id"),)
