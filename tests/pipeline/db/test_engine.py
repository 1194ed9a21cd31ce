"""The way to the database: full disks, locked files, refusals that pass and refusals that stay."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError

from models import Delivery, Job
from pipeline.db import engine
from pipeline.service import Service
from tests.assertions import only, table
from tests.factories.callbacks import boxes, callback, receive_callback
from tests.factories.services import open_on


def full_disks(file: Path, folder: Path, pages: range) -> Iterator[Service]:
    """Services on copies of a SQLite file that may grow by a given number of pages and no more."""
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
    for service in full_disks(migrated_sqlite_file, tmp_path, range(0, 400, 16)):
        try:
            receipt = receive_callback(service, body)
        except SQLAlchemyError:
            outcomes.append("503")
            assert table(service, Delivery) == table(service, Job) == []
        else:
            outcomes.append(receipt.status)
            assert [row["id"] for row in table(service, Delivery)] == [receipt.delivery_id]
    assert outcomes == sorted(outcomes)
    assert (outcomes[0], outcomes[-1]) == ("503", "processed")


def test_readers_and_writers_never_wait_for_each_other(sqlite_url: str) -> None:
    service = open_on(sqlite_url)
    receive_callback(service, callback(boxes("car")))
    with service.engine.begin() as writer:
        writer.execute(text("UPDATE deliveries SET duplicates = 7"))
        assert [row["duplicates"] for row in table(service, Delivery)] == [0]
    with service.reader.begin() as reader:
        reader.execute(text("SELECT * FROM deliveries")).all()
        assert receive_callback(service, callback(boxes("bus"))).status == "processed"
    service.engine.dispose()


def test_transactions_that_read_and_then_write_wait_for_each_other(sqlite_url: str) -> None:
    """SQLite refuses at once, without a wait, to write after another connection has written what was read."""

    def count_up(service: Service) -> None:
        for _ in range(50):
            with service.engine.begin() as connection:
                seen = connection.scalar(text("SELECT duplicates FROM deliveries"))
                connection.execute(text("UPDATE deliveries SET duplicates = :next"), {"next": seen + 1})

    services = [open_on(sqlite_url) for _ in range(4)]
    receive_callback(services[0], b"[]")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count_up, services))
    assert only(services[0], Delivery)["duplicates"] == 200
    for service in services:
        service.engine.dispose()


def test_no_wait_for_the_server_is_without_an_end(postgres_url: str) -> None:
    service = open_on(postgres_url)
    with service.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        asked = driver.info.get_parameters()
        names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        bounds = [connection.scalar(text(f"SHOW {name}")) for name in names]
    assert bounds == ["3s", "15s", "1min"]
    assert {
        name: int(asked[name]) for name in ("connect_timeout", "keepalives_idle", "tcp_user_timeout")
    } == {
        "connect_timeout": 3,
        "keepalives_idle": 10,
        "tcp_user_timeout": 20_000,
    }
    service.engine.dispose()


def test_a_connection_that_ended_while_it_was_idle_is_replaced_before_it_is_used(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PING_AFTER_IDLE_SECONDS", 0.0)
    service, administrator = open_on(postgres_url), open_on(postgres_url)
    assert table(service, Delivery) == []
    with administrator.engine.begin() as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        end = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"
        assert connection.scalars(text(end)).all() == [True]
    assert table(service, Delivery) == []
    for one in (service, administrator):
        one.engine.dispose()
