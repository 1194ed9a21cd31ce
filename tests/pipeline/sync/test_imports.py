"""Files of task objects: any of their forms, as a stream, taken once, and gone on with after an interruption."""

import io
import json
import tracemalloc
from typing import Any

import pytest

from models import Annotation, Delivery, DeliveryBody, SyncRun, Task
from pipeline.service import Service
from pipeline.sync import imports
from pipeline.sync.imports import Import, UnreadableImport, import_file
from tests.assertions import only, stored_rows, table
from tests.factories.callbacks import RECORDED, boxes, callback, receive_callback, task


def whole(service: Service, content: Any, environment: str = "live", **options: Any) -> Import:
    """Import all of it."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    *_, last = import_file(service, io.BytesIO(body), environment, **options)
    return last


def tasks(count: int) -> list[dict[str, Any]]:
    return [task(task_id=f"task-{n}", response=boxes("car")) for n in range(count)]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(tasks(3)).encode(),
        json.dumps(tasks(3), indent=2).encode(),
        b"\n".join(json.dumps(one).encode() for one in tasks(3)),
        b"\xef\xbb\xbf" + json.dumps(tasks(3)).encode(),
        json.dumps({"docs": tasks(3), "total": 3, "has_more": False}).encode(),
        json.dumps({"total": 3, "tasks": tasks(3)}).encode(),
        b"".join(json.dumps(page).encode() for page in ({"docs": tasks(3)[:2]}, {"docs": tasks(3)[2:]})),
    ],
    ids=["list", "indented", "lines", "byte order mark", "page", "export", "pages"],
)
def test_every_form_of_an_export_is_taken(content: bytes, service: Service) -> None:
    state = whole(service, content)
    assert (state.objects, state.missing, state.taken) == (3, 3, 3)
    assert {row["task_id"] for row in table(service, Task)} == {"task-0", "task-1", "task-2"}
    assert {row["kind"] for row in table(service, Delivery)} == {"imported"}


def test_one_task_object_and_the_json_of_an_email_callback_are_taken_alike(service: Service) -> None:
    whole(service, task(response=boxes("car")))
    as_object = {
        name: rows for name, rows in stored_rows(service).items() if name in ("tasks", "annotations")
    }
    with service.engine.begin() as connection:
        for model in (Task, Delivery, DeliveryBody, Annotation):
            connection.execute(model.__table__.delete())
        connection.exec_driver_sql("DELETE FROM responses")
    whole(service, callback(boxes("car")))
    found = {name: rows for name, rows in stored_rows(service).items() if name in ("tasks", "annotations")}
    for one in (found, as_object):
        for row in one["tasks"]:
            for name in ("clock_delivery_id", "described_delivery_id", "latest_response_delivery_id"):
                del row[name]
    assert found == as_object


def test_every_recorded_body_is_taken_from_a_file(service: Service) -> None:
    content = b"\n".join(json.dumps(json.loads(path.read_bytes())).encode() for path in RECORDED)
    state = whole(service, content)
    assert state.objects == len(RECORDED)
    assert state.quarantined == 0


def test_what_callbacks_brought_is_not_received_again(service: Service) -> None:
    receive_callback(service, callback(boxes("car"), task_id="task-1"))
    assert whole(service, tasks(3)).taken == 2
    assert whole(service, tasks(3)).taken == 0
    assert len(table(service, Delivery)) == 3


def test_an_older_response_is_kept_as_an_older_version(service: Service) -> None:
    receive_callback(service, callback(boxes("car", "car"), updated_at="2026-02-01T00:00:00Z"))
    state = whole(service, task(response=boxes("car")))
    assert (state.stale, state.taken) == (1, 1)
    assert only(service, Task)["response_count"] == 2


def test_a_dry_run_takes_nothing_and_counts(service: Service) -> None:
    state = whole(service, tasks(3), dry_run=True)
    assert (state.missing, state.taken) == (3, 0)
    assert table(service, Delivery) == table(service, SyncRun) == []


def test_the_environment_is_the_chosen_one_unless_a_task_says_is_test(service: Service) -> None:
    whole(service, [task(task_id="a", response={}), task(task_id="b", response={}, is_test=True)], "live")
    whole(service, [task(task_id="c", response={})], "test")
    assert {row["task_id"]: row["environment"] for row in table(service, Task)} == {
        "a": "live",
        "b": "test",
        "c": "test",
    }


def test_what_is_no_task_object_is_quarantined_with_its_reason(service: Service) -> None:
    state = whole(service, [1, {"x": 1}, task(response={})])
    assert (state.objects, state.taken, state.quarantined) == (3, 1, 2)
    assert sorted(row["reason"] or "" for row in table(service, Delivery)) == [
        "",
        "the body is a number, not an object",
        "the body names no task_id and no batch",
    ]


@pytest.mark.parametrize("content", [b"", b"no json", b'{"task_id": "a"', b"[1, 2"])
def test_a_file_that_is_no_json_says_where(content: bytes, service: Service) -> None:
    with pytest.raises(UnreadableImport, match=r"after \d objects it is not JSON"):
        whole(service, content)


def test_what_stands_before_a_fault_is_taken(service: Service) -> None:
    with pytest.raises(UnreadableImport, match="after 3 objects"):
        whole(service, json.dumps(tasks(3)).encode()[:-1] + b", {broken")
    assert len(table(service, Task)) == 3


def test_an_interrupted_import_goes_on_where_it_stopped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "OBJECT_BATCH_SIZE", 2)
    content = json.dumps(tasks(7)).encode()
    for state in import_file(service, io.BytesIO(content), "live"):
        if state.objects == 4:
            break
    resumed = whole(service, content)
    assert (resumed.skipped, resumed.objects, resumed.taken) == (4, 7, 3)
    assert only(service, SyncRun)["finished_at"] is not None
    again = whole(service, content)
    assert (again.skipped, again.objects, again.taken) == (0, 7, 0)


def test_an_interrupted_import_can_start_from_the_beginning(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "OBJECT_BATCH_SIZE", 2)
    content = json.dumps(tasks(5)).encode()
    next(import_file(service, io.BytesIO(content), "live"))
    assert whole(service, content, resume=False).skipped == 0


def test_another_file_of_the_same_size_is_another_import(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "OBJECT_BATCH_SIZE", 2)
    first = json.dumps(tasks(5)).encode()
    next(import_file(service, io.BytesIO(first), "live"))
    assert whole(service, first.replace(b"task-4", b"task-9")).skipped == 0


def test_a_large_export_is_read_as_a_stream(service: Service) -> None:
    class Export(io.RawIOBase):
        """Much of it, made while it is read."""

        def __init__(self) -> None:
            self.one = json.dumps(task(response={}, metadata={"k": "x" * 100_000})).encode() + b"\n"
            self.left, self.at = 600, b""

        def seek(self, *_: Any) -> int:
            self.left, self.at = 600, b""
            return 600 * len(self.one)

        def read(self, size: int = -1) -> bytes:
            if not self.at and self.left:
                self.left -= 1
                self.at = self.one
            piece, self.at = self.at[:size], self.at[size:]
            return piece

    receive_callback(service, callback({}, metadata={"k": "x" * 100_000}))
    tracemalloc.start()
    *_, state = import_file(service, Export(), "live")  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (state.objects, state.taken) == (600, 0)
    assert peak < 40_000_000  # of 60 MB
