"""The way to the database: full disks, locked files, refusals that pass and refusals that stay."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from config import Settings
from models import Delivery, Job
from pipeline.service import Service
from tests.pipeline.bodies import boxes, callback, take
from tests.pipeline.rows import table


def open_on(database_url: str) -> Service:
    return Service.open(Settings(database_url=database_url, workflows_dir="config/workflows", secret_key="s"))


# SQLite.


def full_disks(file: Path, folder: Path, pages: range) -> Iterator[Service]:
    """Services on copies of a SQLite file that may grow by so many pages, and not by one more."""
    for more in pages:
        copy = folder / f"{more}.db"
        shutil.copyfile(file, copy)
        most = copy.stat().st_size // 4096 + more
        one = open_on(f"sqlite:///{copy}")

        @event.listens_for(one.engine, "connect")
        def bound(connection: Any, _: Any, most: int = most) -> None:
            connection.execute(f"PRAGMA max_page_count={most}")

        yield one
        one.engine.dispose()


def test_on_a_full_disk_what_was_acknowledged_is_there(migrated_sqlite_file: Path, tmp_path: Path) -> None:
    """Where the file is full, SQLite takes back the whole transaction and not only the statement that did not fit."""
    body = callback(boxes(*["car"] * 3_000))
    outcomes = []
    for here in full_disks(migrated_sqlite_file, tmp_path, range(0, 400, 16)):
        try:
            receipt = take(here, body)
        except SQLAlchemyError:
            outcomes.append("503")
            assert table(here, Delivery) == table(here, Job) == []
        else:
            outcomes.append(receipt.status)
            assert [row["id"] for row in table(here, Delivery)] == [receipt.delivery_id]
    assert outcomes == sorted(outcomes)
    assert (outcomes[0], outcomes[-1]) == ("503", "processed")
