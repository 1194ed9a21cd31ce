"""What becomes of one body: taken, counted as a duplicate, kept in quarantine with its reason, or completed from Scale."""

import copy
import dataclasses
import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config import Settings
from models import Annotation, Batch, Delivery, Job, Response, Task
from pipeline.bootstrap import build_service
from pipeline.db.ids import new_id
from pipeline.jobs import kinds
from pipeline.receive import replay
from pipeline.receive.receive import Receipt, parse_body
from pipeline.receive.rows import DeliveryMeta, insert_delivery
from pipeline.service import Service
from scale import task_types
from scale.task_types import TaskType
from tests.assertions import bodies, empty, only, stored_rows, table
from tests.factories.callbacks import RECORDED, boxes, callback, receive_callback
from workers.runner import run_due_jobs

TASK_ID = "5f1e9b000000000000000001"


def quarantined(service: Service, body: bytes, environment: str = "live") -> str:
    """Take a body that must end in quarantine, with nothing written but itself; why it is there."""
    receipt = receive_callback(service, body, environment)
    assert receipt.status == "quarantined"
    delivery = next(row for row in table(service, Delivery) if row["id"] == receipt.delivery_id)
    assert (delivery["status"], bodies(service)[receipt.delivery_id]) == ("quarantined", body)
    assert receipt.jobs == []
    return str(delivery["reason"])


def test_the_same_body_20_times_is_one_delivery_with_19_duplicates(service: Service) -> None:
    body = callback(boxes("car"))
    receipts = [receive_callback(service, body) for _ in range(20)]
    assert [receipt.status for receipt in receipts] == ["processed"] + ["duplicate"] * 19
    assert len({receipt.delivery_id for receipt in receipts}) == 1
    delivery = only(service, Delivery)
    assert delivery["duplicates"] == 19
    assert delivery["last_received_at"] > delivery["received_at"]
    assert (len(table(service, Response)), len(table(service, Annotation))) == (1, 1)


@pytest.mark.parametrize("known", [False, True])
def test_the_same_body_50_times_at_once_is_one_response(known: bool, service: Service) -> None:
    """Of a task that is new (PostgreSQL's one statement) and of one that is known (the steps)."""
    if known:
        receive_callback(service, callback(boxes("bicycle"), updated_at="2025-12-31T00:00:00Z"))
    body = callback(boxes("car", "pedestrian"))
    before = len(table(service, Delivery))
    receipts: list[Receipt] = []
    threads = [
        threading.Thread(target=lambda: receipts.append(receive_callback(service, body))) for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt.status for receipt in receipts) == ["duplicate"] * 49 + ["processed"]
    assert len({receipt.delivery_id for receipt in receipts}) == 1
    assert len(table(service, Delivery)) == before + 1
    assert sum(row["duplicates"] for row in table(service, Delivery)) == 49
    assert len(table(service, Response)) == before + 1
    assert len(table(service, Annotation)) == before + 2


def test_a_large_body_20_times_at_once_is_one_delivery(service: Service) -> None:
    """PostgreSQL gets it in pieces, see pipeline/db/postgresql.py."""
    body = bytes(range(256)) * 2_000
    with ThreadPoolExecutor(20) as pool:
        receipts = list(pool.map(lambda _: receive_callback(service, body, inline_bytes=0), range(20)))
    receipts.append(receive_callback(service, body, "test", inline_bytes=0, headers={"User-Agent": "é"}))
    assert sorted(receipt.status for receipt in receipts) == ["duplicate"] * 19 + ["stored"] * 2
    live, test = sorted(table(service, Delivery), key=lambda row: row["environment"])
    assert bodies(service) == {live["id"]: body, test["id"]: body}
    assert (live["duplicates"], test["duplicates"]) == (19, 0)
    assert (live["headers"], test["headers"]) == ({}, {"User-Agent": "é"})
    assert live["size_bytes"] == len(body)
    assert live["received_at"] <= live["last_received_at"] < test["received_at"] == test["last_received_at"]
    run_due_jobs(service)
    assert {row["status"] for row in table(service, Delivery)} == {"quarantined"}


@pytest.mark.parametrize("is_parsed", [True, False])  # on PostgreSQL each has a statement of its own
def test_a_repetition_that_is_stored_late_does_not_move_the_last_receipt_back(
    is_parsed: bool, service: Service
) -> None:
    body = callback(boxes("car"))
    parsed = parse_body(body, "live") if is_parsed else None
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    last_received_at = []
    for seconds in (0, -1, 2, 1):
        received_at = noon + timedelta(seconds=seconds)
        with service.engine.begin() as connection:
            insert_delivery(
                connection, DeliveryMeta(new_id(), "callback", "live", received_at), body, {}, parsed
            )
        last_received_at.append(only(service, Delivery)["last_received_at"])
    assert last_received_at == [noon, noon, noon + timedelta(seconds=2), noon + timedelta(seconds=2)]
    assert only(service, Delivery)["received_at"] == noon


def test_fifty_events_of_one_task_at_once_are_all_kept(service: Service) -> None:
    bodies = [callback(boxes(*["car"] * n), updated_at=f"2026-01-01T10:{n:02}:00Z") for n in range(50)]
    statuses: list[str] = []
    threads = [
        threading.Thread(target=lambda one=one: statuses.append(receive_callback(service, one).status))
        for one in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_due_jobs(service)  # a delivery that waited too long for its task was left to the worker
    assert {row["status"] for row in table(service, Delivery)} == {"processed"}
    versions = sorted(table(service, Response), key=lambda row: row["number"])
    assert [(row["number"], row["annotation_count"]) for row in versions] == [(n + 1, n) for n in range(50)]
    assert only(service, Task)["response_id"] == versions[-1]["id"]


def test_the_same_bytes_of_both_environments_are_two_deliveries(service: Service) -> None:
    body = b"[]"
    assert (
        receive_callback(service, body, "live").delivery_id
        != receive_callback(service, body, "test").delivery_id
    )


def test_a_body_that_was_quarantined_is_a_duplicate_when_it_comes_again(service: Service) -> None:
    quarantined(service, b"nothing")
    assert receive_callback(service, b"nothing").status == "duplicate"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"not json", "not JSON"),
        (b"\x1f\x8b\x08\x00gzip", "not JSON"),
        ("größer".encode("latin-1"), "not JSON"),
        (b"[1, 2]", "the body is a list, not an object"),
        (b'"text"', "the body is a string, not an object"),
        (b"null", "the body is null, not an object"),
        (b"{}", "names no task_id and no batch"),
        (b'{"error": "bad", "attachments": [{"statusCode": 500}]}', "names no task_id and no batch"),
        (b'{"task_id": "", "task": {}}', "names no task_id and no batch"),
        (b'{"task_id": "%s", "response": {}}' % (b"x" * 201), "more than 200 characters"),
        (b"[" * 10_000 + b"]" * 10_000, "nested deeper than 200 levels"),
        (b'{"task_id": "1", "a": %s1%s}' % (b'{"b":' * 300, b"}" * 300), "nested deeper than 200 levels"),
    ],
)
def test_what_is_no_callback_is_kept_whole_with_the_reason(
    body: bytes, reason: str, service: Service
) -> None:
    assert reason in quarantined(service, body)
    assert table(service, Task) == table(service, Response) == table(service, Job) == []


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of a body stands."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*at, key)
        yield from places(value[key], (*at, key))


RICH = {
    "task": {
        "task_id": TASK_ID,
        "type": "imageannotation",
        "status": "completed",
        "project": "street-scenes",
        "batch": "b1",
        "unique_id": "u1",
        "instruction": "Draw",
        "urgency": "standard",
        "tags": ["a"],
        "priority": 10,
        "metadata": {"k": 1},
        "params": {"attachment": "https://example.com/a.png"},
        "created_at": "2026-01-01T09:00:00.000Z",
        "updated_at": "2026-01-01T10:00:00.000Z",
        "completed_at": "2026-01-01T10:00:00.000Z",
        "is_test": False,
        "callback_succeeded": True,
        "callback_completed": True,
        "customer_review_status": "accepted",
        "customer_review_comments": ["fine"],
        "customer_audited_at": "2026-01-01T10:00:00.000Z",
        "audits": [
            {"audited_at": "2026-01-01T10:00:00.000Z", "audit_result": "accepted", "audit_source": "customer"}
        ],
        "attempts": [],
        "prior_responses": [],
    },
    "task_id": TASK_ID,
    "status": "completed",
    "response": {
        "annotations": [
            {
                "type": "polygon",
                "label": "car",
                "uuid": "a",
                "attributes": {"color": "red"},
                "vertices": [{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 6}],
            },
            {"type": "box", "label": "car", "left": 1, "top": 2, "width": 3, "height": 4},
        ],
        "links": [],
        "global_attributes": {"weather": "rain"},
    },
}
WRONG = [
    None,
    True,
    -1,
    2**40,
    2**70,
    1.5,
    "",
    "text",
    "x" * 3_000,
    [],
    [[]],
    {},
    {"a": {"b": [None]}},
    "2026-99-99",
]
REFUSED = {("task",), ("task_id",), ("task", "task_id")}


@pytest.mark.parametrize("place", list(places(RICH)), ids=lambda place: ".".join(map(str, place)))
def test_a_field_of_any_wrong_form_costs_that_field_and_never_the_callback(
    place: tuple[Any, ...], service: Service
) -> None:
    for number, wrong in enumerate(WRONG):
        body = copy.deepcopy(RICH)
        body["task_id"] = body["task"]["task_id"] = f"task-{number}"
        where: Any = body
        for key in place[:-1]:
            where = where[key]
        where[place[-1]] = wrong
        receipt = receive_callback(service, json.dumps(body).encode())
        assert receipt.status == "processed" or place in REFUSED, f"{place} is {wrong!r}"
    assert {row["status"] for row in table(service, Task)} <= {
        "completed",
        "pending",
        "text",
        "",
        "x" * 3_000,
        "2026-99-99",
    }


@pytest.mark.parametrize(
    "odd",
    [
        b'"\\u0000"',
        b'"\\ud800"',
        b'"\\udfff and \\ud83d\\ude00"',
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"1" + b"0" * 400,
        b"-" + b"9" * 400,
        b"1" + b"0" * 5_000,
        b"0." + b"1" * 400,
        b"12345678901234567890123456789",
        b"1e-400",
    ],
    ids=lambda odd: odd[:30].decode(),
)
def test_values_that_databases_refuse_are_taken_wherever_they_stand(odd: bytes, service: Service) -> None:
    for number, place in enumerate(places(RICH)):
        body = copy.deepcopy(RICH)
        body["task_id"] = body["task"]["task_id"] = f"task-{number}"
        where: Any = body
        for key in place[:-1]:
            where = where[key]
        where[place[-1]] = "HERE"
        receipt = receive_callback(service, json.dumps(body).encode().replace(b'"HERE"', odd))
        assert receipt.status == "processed" or place in REFUSED, place
        keyed = (
            json.dumps(body)
            .encode()
            .replace(b'"HERE"', b"{%s: 1}" % (odd if odd[:1] == b'"' else b'"%s"' % odd))
        )
        assert receive_callback(service, keyed).status in (
            "processed",
            "quarantined" if place in REFUSED else "processed",
        ), place


def test_of_equal_keys_the_last_one_counts(service: Service) -> None:
    receive_callback(
        service, b'{"task_id": "a", "task_id": "%s", "response": {"x": 1, "x": 2}}' % TASK_ID.encode()
    )
    assert (only(service, Task)["task_id"], only(service, Response)["response"]) == (TASK_ID, {"x": 2})


def test_a_byte_order_mark_is_passed_over(service: Service) -> None:
    assert receive_callback(service, b"\xef\xbb\xbf" + callback(boxes("car"))).status == "processed"


class Broken:
    """A task type whose code has a mistake."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def __call__(self, *_: Any) -> Any:
        raise self.failure


@pytest.mark.parametrize("failure", [KeyError("nope"), RecursionError("too deep"), MemoryError()])
def test_a_task_type_whose_code_raises_costs_nothing_but_its_callbacks(
    failure: Exception, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: TaskType = task_types.task_type("imageannotation")
    monkeypatch.setitem(
        task_types._BY_NAME, "imageannotation", dataclasses.replace(known, parse=Broken(failure))
    )
    reason = quarantined(service, callback(boxes("car")))
    assert type(failure).__name__ in reason
    assert table(service, Task) == table(service, Response) == []
    assert (
        receive_callback(service, callback({"category": "a"}, type="categorization", task_id="other")).status
        == "processed"
    )
    monkeypatch.undo()
    ((_, replayed),) = replay.replay_many(service, "ana", Delivery.status == "quarantined")
    assert isinstance(replayed, replay.Replay)
    assert replayed.changed["delivery"] == ("quarantined", "processed")
    assert len(table(service, Annotation)) == 1


def test_what_the_code_raises_for_a_known_task_leaves_the_task_as_it_was(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive_callback(service, callback(boxes("car")))
    before = {name: rows for name, rows in stored_rows(service).items() if name != "deliveries"}
    known = task_types.task_type("imageannotation")
    monkeypatch.setitem(
        task_types._BY_NAME,
        "imageannotation",
        dataclasses.replace(known, parse=Broken(ValueError("no"))),
    )
    quarantined(service, callback(boxes("bicycle"), updated_at="2026-01-02T00:00:00Z"))
    assert {name: rows for name, rows in stored_rows(service).items() if name != "deliveries"} == before


def test_a_test_callback_for_a_live_task_is_quarantined(service: Service) -> None:
    receive_callback(service, callback(boxes("car")))
    reason = quarantined(service, callback(boxes("car", "car")), "test")
    assert reason == f"it came as test, but its task {TASK_ID} is known as live"
    assert (only(service, Task)["environment"], len(table(service, Response))) == ("live", 1)


def test_a_task_that_says_is_test_is_one_whatever_the_key(service: Service) -> None:
    for number, options in enumerate(({}, {"inline_bytes": 0})):
        receive_callback(
            service, callback(boxes("car"), is_test=True, task_id=f"task-{number}"), "live", **options
        )
    run_due_jobs(service)
    assert {row["environment"] for row in table(service, Task)} == {"test"}
    assert {row["environment"] for row in table(service, Delivery)} == {"test"}


@pytest.mark.parametrize(
    "body",
    [
        {"batch": "night", "status": "completed", "project": "streets"},
        {"batch": {"name": "night", "status": "completed", "project": "streets"}},
        {"name": "night", "status": "completed", "project": "streets", "callback": "https://example.com"},
        {"batch_name": "night", "status": "completed"},
    ],
)
def test_a_body_that_names_only_a_batch_updates_it(body: dict[str, Any], service: Service) -> None:
    assert receive_callback(service, json.dumps(body).encode()).status == "processed"
    batch = only(service, Batch)
    assert (batch["environment"], batch["name"], batch["status"]) == ("live", "night", "completed")
    assert batch["project"] == ("streets" if "project" in str(body) else None)
    assert batch["details"] == (body["batch"] if isinstance(body.get("batch"), dict) else body)
    assert only(service, Delivery)["event"] == "batch"
    assert table(service, Task) == []


def test_an_older_word_of_a_batch_changes_nothing(service: Service) -> None:
    for status, day in (("completed", 2), ("in_progress", 1)):
        body = {
            "batch": "night",
            "status": status,
            "updated_at": f"2026-01-0{day}T00:00:00Z",
            "project": "streets",
        }
        receive_callback(service, json.dumps(body).encode())
    assert only(service, Batch)["status"] == "completed"
    receive_callback(service, b'{"batch": "night", "status": "paused"}')
    assert (only(service, Batch)["status"], only(service, Batch)["project"]) == ("paused", "streets")


def test_the_words_of_a_batch_in_any_order_end_in_the_same_row(service: Service) -> None:
    words = [
        {
            "batch": "night",
            "status": "in_progress",
            "updated_at": "2026-01-01T00:00:00Z",
            "project": "streets",
        },
        {"batch": "night", "status": "completed", "updated_at": "2026-01-02T00:00:00Z"},
        {"batch": "night", "status": "staging", "updated_at": "2025-12-31T00:00:00Z", "project": "streets"},
    ]
    found = []
    for order in itertools.permutations(words):
        empty(service)
        for word in order:
            receive_callback(service, json.dumps(word).encode())
        found.append(only(service, Batch))
    assert found == [found[0]] * 6
    assert (found[0]["status"], found[0]["project"]) == ("completed", "streets")


def test_without_a_task_object_what_is_stored_of_the_task_counts(service: Service) -> None:
    receive_callback(service, callback(boxes("car"), type="polygonannotation"))
    receive_callback(
        service,
        json.dumps(
            {"task_id": TASK_ID, "response": {"annotations": [{"vertices": [{"x": 1, "y": 2}] * 3}]}}
        ).encode(),
    )
    assert sorted((row["type"], row["warning"] is None) for row in table(service, Annotation))[-1] == (
        "polygon",
        True,
    )
    assert only(service, Task)["type"] == "polygonannotation"
    assert table(service, Job) == []


def test_a_task_without_a_description_is_requested_once(service: Service) -> None:
    for n in range(3):
        receive_callback(service, json.dumps({"task_id": TASK_ID, "response": {"n": n}}).encode())
    assert [row["key"] for row in table(service, Job) if row["kind"] != kinds.PLAN] == [f"describe:{TASK_ID}"]


def test_both_kinds_of_database_hold_the_same_rows_of_every_recorded_body(
    sqlite_url: str, postgres_url: str
) -> None:
    kinds = [
        build_service(Settings(database_url=url, workflows_dir="nowhere", secret_key="s"))
        for url in (sqlite_url, postgres_url)
    ]
    for path in RECORDED:
        found = []
        for one in kinds:
            empty(one)
            receive_callback(one, path.read_bytes())
            found.append(stored_rows(one, receipt=True))
        assert found[0] == found[1], path
    for one in kinds:
        one.engine.dispose()
