"""A backup under load, killed, restored into either database: every row and every content is compared."""

import io
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from config import Settings
from models import Annotation, Artifact, AuditEntry, Base, Delivery, Response, Task
from pipeline.backup.backup import back_up
from pipeline.backup.folder import UnusableBackup
from pipeline.backup.restore import NotEmpty, restore
from pipeline.backup.rows import tables
from pipeline.bootstrap import build_service
from pipeline.db.ids import new_id
from pipeline.retention.purge import purge
from pipeline.retention.selection import ARTIFACTS, Selection
from pipeline.service import Service
from tests.assertions import bodies, table
from tests.factories.callbacks import RECORDED, boxes, callback, receive_callback, received_at
from tests.servers import wait_until

Rows = dict[str, list[str]]


def plain(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True, default=repr)


def rows_of(service: Service) -> Rows:
    """Every row of every table, with sorted keys: jsonb sorts them. Of the audit log only what a backup does not add."""
    models = {mapper.local_table.name: mapper.class_ for mapper in Base.registry.mappers}
    found = {one.name: sorted(map(plain, table(service, models[one.name]))) for one in tables()}
    found["audit_log"] = [row for row in found["audit_log"] if "backup." not in row]
    return found


def fill(service: Service) -> list[str]:
    """One delivery of each recorded body, files, and values that are easily changed on the way. Return the files' digests."""
    for path in RECORDED:
        receive_callback(service, path.read_bytes())
    receive_callback(service, b"\x00\xff not JSON")
    receive_callback(
        service,
        callback(
            {**boxes("grün \u2028 😀"), "big": 12345678901234567890123456789, "tiny": 5e-324, "none": None},
            task_id="odd",
        ),
    )
    digests = []
    with service.engine.begin() as connection:
        response_id = connection.scalar(select(Response.id).where(Response.task_id == "odd"))
        for ordinal, content in enumerate((b"pixels", b"p" * 3_000_000), 1):
            sha256, size = service.store.put(io.BytesIO(content))
            digests.append(sha256)
            row = {"id": new_id(), "response_id": response_id, "task_id": "odd", "ordinal": ordinal}
            row |= {
                "role": "image",
                "url": "https://x/y",
                "state": "stored",
                "sha256": sha256,
                "size_bytes": size,
            }
            connection.execute(Artifact.__table__.insert().values(row))
    return digests


@pytest.fixture
def other(sqlite_url: str, postgres_url: str, database_url: str, tmp_path: Path) -> Any:
    """A second, empty installation on the other kind of database."""
    url = postgres_url if database_url.startswith("sqlite") else sqlite_url
    one = build_service(
        Settings(database_url=url, artifact_store=str(tmp_path / "other-store"), secret_key="secret")
    )
    yield one
    one.engine.dispose()


def test_every_row_and_content_comes_back_on_the_other_database(
    service: Service, other: Service, tmp_path: Path
) -> None:
    digests = fill(service)
    before = rows_of(service)
    manifest = back_up(service, tmp_path / "backup", "ana")
    assert manifest["contents"]["count"] == 2
    assert restore(other, tmp_path / "backup", "ana", dry_run=True) == manifest
    restore(other, tmp_path / "backup", "ana")
    assert rows_of(other) == before
    for sha256 in digests:
        with service.store.open(sha256) as one, other.store.open(sha256) as two:
            assert one.read() == two.read()
    with other.reader.begin() as connection:
        assert "backup.restore" in connection.scalars(select(AuditEntry.action)).all()


def test_bodies_of_the_past_come_back_in_their_month(
    service: Service, other: Service, tmp_path: Path
) -> None:
    with received_at(datetime(2025, 3, 15, tzinfo=UTC)):
        receive_callback(service, callback(boxes("car")))
    back_up(service, tmp_path / "backup", "ana")
    restore(other, tmp_path / "backup", "ana")
    assert bodies(other) == bodies(service)
    if other.engine.dialect.name == "postgresql":
        with other.reader.begin() as connection:
            assert connection.scalar(text("SELECT count(*) FROM delivery_bodies_2025_03")) == 1


def test_a_used_database_is_refused_until_it_is_forced(service: Service, tmp_path: Path) -> None:
    fill(service)
    before = rows_of(service)
    back_up(service, tmp_path / "backup", "ana")
    receive_callback(service, callback(boxes("later"), task_id="later"))
    with pytest.raises(NotEmpty, match="deliveries"):
        restore(service, tmp_path / "backup", "ana")
    restore(service, tmp_path / "backup", "ana", force=True)
    assert rows_of(service) == before


def test_a_changed_byte_is_found_before_anything_is_written(
    service: Service, other: Service, tmp_path: Path
) -> None:
    fill(service)
    back_up(service, tmp_path / "backup", "ana")
    for pattern in ("rows-*/tasks.jsonl.gz", "contents/*/*/*"):
        place = next((tmp_path / "backup").glob(pattern))
        good = place.read_bytes()
        place.write_bytes(good[:-1] + bytes((good[-1] ^ 1,)))
        for dry_run in (True, False):
            with pytest.raises(UnusableBackup, match="other bytes"):
                restore(other, tmp_path / "backup", "ana", dry_run=dry_run)
        assert table(other, Task) == []
        place.write_bytes(good)
    restore(other, tmp_path / "backup", "ana")


def test_a_backup_under_load_is_of_one_moment(service: Service, other: Service, tmp_path: Path) -> None:
    fill(service)
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            receive_callback(service, callback(boxes("car", "tree"), task_id=f"load-{number}"))
            number += 1

    threads = [threading.Thread(target=load)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: any(row["task_id"] == "load-3" for row in table(service, Task)), 30)
        back_up(service, tmp_path / "backup", "ana")
        behind = {row["task_id"] for row in table(service, Task)}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    restore(other, tmp_path / "backup", "ana")
    ids = {row["id"] for row in table(other, Response)}
    assert {row["response_id"] for row in table(other, Annotation)} <= ids
    restored = {row["task_id"] for row in table(other, Task)}
    assert {"load-0", "load-3"} <= restored <= behind
    with_delivery = {row["task_id"] for row in table(other, Delivery) if row["task_id"]}
    assert restored <= with_delivery
    assert {row["delivery_id"] for row in table(other, Response)} <= {
        row["id"] for row in table(other, Delivery)
    }


def test_a_killed_backup_leaves_the_one_before_and_goes_on(
    service: Service, other: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(service)
    first = back_up(service, tmp_path / "backup", "ana")
    before = rows_of(service)
    receive_callback(service, callback(boxes("car"), task_id="later"))

    def killed(what: str, _: int) -> None:
        if what == "tasks":
            raise SystemExit

    with pytest.raises(SystemExit):
        back_up(service, tmp_path / "backup", "ana", killed)
    assert restore(other, tmp_path / "backup", "ana") == first
    assert rows_of(other) == before
    back_up(service, tmp_path / "backup", "ana")
    assert len(list((tmp_path / "backup").glob("rows-*"))) == 1
    restore(other, tmp_path / "backup", "ana", force=True)
    assert rows_of(other) == rows_of(service)


def test_a_killed_restore_leaves_the_rows_as_they_were(
    service: Service, other: Service, tmp_path: Path
) -> None:
    fill(service)
    back_up(service, tmp_path / "backup", "ana")
    receive_callback(other, callback(boxes("own"), task_id="own"))
    before = rows_of(other)

    def killed(what: str, _: int) -> None:
        if what == "responses":
            raise SystemExit

    with pytest.raises(SystemExit):
        restore(other, tmp_path / "backup", "ana", force=True, report=killed)
    assert rows_of(other) == before
    restore(other, tmp_path / "backup", "ana", force=True)
    assert rows_of(other) == rows_of(service)


def test_a_content_that_was_purged_meanwhile_is_restored_as_purged(
    service: Service, other: Service, tmp_path: Path
) -> None:
    digests = fill(service)

    def purge_at_the_end_of_the_rows(what: str, _: int) -> None:
        if what == tables()[-1].name:
            list(purge(service, Selection((ARTIFACTS,), task_ids=("odd",)), "ana", dry_run=False))

    manifest = back_up(service, tmp_path / "backup", "ana", purge_at_the_end_of_the_rows)
    assert manifest["contents"]["gone"] == sorted(digests)
    restore(other, tmp_path / "backup", "ana")
    assert all(row["purged_at"] for row in table(other, Artifact) if row["sha256"])


def test_a_lost_content_is_named(service: Service, tmp_path: Path) -> None:
    (first, _) = fill(service)
    service.store.delete(first)
    manifest = back_up(service, tmp_path / "backup", "ana")
    assert manifest["contents"]["missing"] == [first]


def test_a_folder_with_other_things_is_refused(service: Service, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(UnusableBackup, match="holds no backup"):
        back_up(service, tmp_path / "photos", "ana")
    with pytest.raises(UnusableBackup, match="no finished backup"):
        restore(service, tmp_path / "photos", "ana")
