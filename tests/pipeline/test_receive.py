"""What becomes of one body: taken, counted as a duplicate, kept in quarantine with its reason, or completed from Scale."""

import copy
import dataclasses
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from config import Settings
from models import Annotation, Batch, Delivery, Job, Response, Task
from pipeline.jobs import queue
from pipeline.receive import replay
from pipeline.receive.receive import Receipt, parse_body
from pipeline.service import Service
from sandbox.pytest_plugin import ScaleSandbox
from scale import task_types
from scale.envelope import LARGE_BYTES, InvalidCallback, parse_json
from scale.task_types import TaskType
from tests.pipeline.bodies import RECORDED, boxes, callback, take
from tests.pipeline.rows import empty, only, standing, table
from workers.runner import run_due_jobs, run_job

TASK_ID = "5f1e9b000000000000000001"


def quarantined(service: Service, body: bytes, environment: str = "live") -> str:
    """Take a body that must end in quarantine, with nothing written but itself; why it is there."""
    receipt = take(service, body, environment)
    assert receipt.status == "quarantined"
    delivery = next(row for row in table(service, Delivery) if row["id"] == receipt.delivery_id)
    assert (delivery["status"], delivery["body"]) == ("quarantined", body)
    assert receipt.jobs == []
    return str(delivery["reason"])


# Duplicates.


def test_the_same_body_20_times_is_one_delivery_with_19_duplicates(here: Service) -> None:
    body = callback(boxes("car"))
    receipts = [take(here, body) for _ in range(20)]
    assert [receipt.status for receipt in receipts] == ["processed"] + ["duplicate"] * 19
    assert len({receipt.delivery_id for receipt in receipts}) == 1
    delivery = only(here, Delivery)
    assert delivery["duplicates"] == 19
    assert delivery["last_received_at"] > delivery["received_at"]
    assert (len(table(here, Response)), len(table(here, Annotation))) == (1, 1)


@pytest.mark.parametrize("known", [False, True])
def test_the_same_body_50_times_at_once_is_one_response(known: bool, here: Service) -> None:
    """Of a task that is new (PostgreSQL's one statement) and of one that is known (the steps)."""
    if known:
        take(here, callback(boxes("bicycle"), updated_at="2025-12-31T00:00:00Z"))
    body = callback(boxes("car", "pedestrian"))
    before = len(table(here, Delivery))
    receipts: list[Receipt] = []
    threads = [threading.Thread(target=lambda: receipts.append(take(here, body))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt.status for receipt in receipts) == ["duplicate"] * 49 + ["processed"]
    assert len({receipt.delivery_id for receipt in receipts}) == 1
    assert len(table(here, Delivery)) == before + 1
    assert sum(row["duplicates"] for row in table(here, Delivery)) == 49
    assert len(table(here, Response)) == before + 1
    assert len(table(here, Annotation)) == before + 2


def test_fifty_events_of_one_task_at_once_are_all_kept(here: Service) -> None:
    bodies = [callback(boxes(*["car"] * n), updated_at=f"2026-01-01T10:{n:02}:00Z") for n in range(50)]
    statuses: list[str] = []
    threads = [
        threading.Thread(target=lambda one=one: statuses.append(take(here, one).status)) for one in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_due_jobs(here)  # a delivery that waited too long for its task was left to the worker
    assert {row["status"] for row in table(here, Delivery)} == {"processed"}
    versions = sorted(table(here, Response), key=lambda row: row["number"])
    assert [(row["number"], row["annotation_count"]) for row in versions] == [(n + 1, n) for n in range(50)]
    assert only(here, Task)["response_id"] == versions[-1]["id"]


def test_the_same_bytes_of_both_environments_are_two_deliveries(here: Service) -> None:
    body = b"[]"
    assert take(here, body, "live").delivery_id != take(here, body, "test").delivery_id


def test_a_body_that_was_quarantined_is_a_duplicate_when_it_comes_again(here: Service) -> None:
    quarantined(here, b"nothing")
    assert take(here, b"nothing").status == "duplicate"


# Quarantine.


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
def test_what_is_no_callback_is_kept_whole_with_the_reason(body: bytes, reason: str, here: Service) -> None:
    assert reason in quarantined(here, body)
    assert table(here, Task) == table(here, Response) == table(here, Job) == []


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
    place: tuple[Any, ...], here: Service
) -> None:
    for number, wrong in enumerate(WRONG):
        body = copy.deepcopy(RICH)
        body["task_id"] = body["task"]["task_id"] = f"task-{number}"
        where: Any = body
        for key in place[:-1]:
            where = where[key]
        where[place[-1]] = wrong
        receipt = take(here, json.dumps(body).encode())
        assert receipt.status == "processed" or place in REFUSED, f"{place} is {wrong!r}"
    assert {row["status"] for row in table(here, Task)} <= {
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
def test_values_that_databases_refuse_are_taken_wherever_they_stand(odd: bytes, here: Service) -> None:
    for number, place in enumerate(places(RICH)):
        body = copy.deepcopy(RICH)
        body["task_id"] = body["task"]["task_id"] = f"task-{number}"
        where: Any = body
        for key in place[:-1]:
            where = where[key]
        where[place[-1]] = "HERE"
        receipt = take(here, json.dumps(body).encode().replace(b'"HERE"', odd))
        assert receipt.status == "processed" or place in REFUSED, place
        keyed = (
            json.dumps(body)
            .encode()
            .replace(b'"HERE"', b"{%s: 1}" % (odd if odd[:1] == b'"' else b'"%s"' % odd))
        )
        assert take(here, keyed).status in (
            "processed",
            "quarantined" if place in REFUSED else "processed",
        ), place


def test_of_equal_keys_the_last_one_counts(here: Service) -> None:
    take(here, b'{"task_id": "a", "task_id": "%s", "response": {"x": 1, "x": 2}}' % TASK_ID.encode())
    assert (only(here, Task)["task_id"], only(here, Response)["response"]) == (TASK_ID, {"x": 2})


def test_a_byte_order_mark_is_passed_over(here: Service) -> None:
    assert take(here, b"\xef\xbb\xbf" + callback(boxes("car"))).status == "processed"


class Broken:
    """A task type whose code has a mistake."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def __call__(self, *_: Any) -> Any:
        raise self.failure


@pytest.mark.parametrize("failure", [KeyError("nope"), RecursionError("too deep"), MemoryError()])
def test_a_task_type_whose_code_raises_costs_nothing_but_its_callbacks(
    failure: Exception, here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: TaskType = task_types.task_type("imageannotation")
    monkeypatch.setitem(
        task_types._BY_NAME, "imageannotation", dataclasses.replace(known, parse=Broken(failure))
    )
    reason = quarantined(here, callback(boxes("car")))
    assert type(failure).__name__ in reason
    assert table(here, Task) == table(here, Response) == []
    assert (
        take(here, callback({"category": "a"}, type="categorization", task_id="other")).status == "processed"
    )
    monkeypatch.undo()
    ((_, replayed),) = replay.replay_many(here, Delivery.status == "quarantined")
    assert isinstance(replayed, replay.Replay)
    assert replayed.changed["delivery"] == ("quarantined", "processed")
    assert len(table(here, Annotation)) == 1


def test_what_the_code_raises_for_a_known_task_leaves_the_task_as_it_was(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(here, callback(boxes("car")))
    before = {name: rows for name, rows in standing(here).items() if name != "deliveries"}
    known = task_types.task_type("imageannotation")
    monkeypatch.setitem(
        task_types._BY_NAME,
        "imageannotation",
        dataclasses.replace(known, parse=Broken(ValueError("no"))),
    )
    quarantined(here, callback(boxes("bicycle"), updated_at="2026-01-02T00:00:00Z"))
    assert {name: rows for name, rows in standing(here).items() if name != "deliveries"} == before


def test_a_test_callback_for_a_live_task_is_quarantined(here: Service) -> None:
    take(here, callback(boxes("car")))
    reason = quarantined(here, callback(boxes("car", "car")), "test")
    assert reason == f"it came as test, but its task {TASK_ID} is known as live"
    assert (only(here, Task)["environment"], len(table(here, Response))) == ("live", 1)


def test_a_task_that_says_is_test_is_one_whatever_the_key(here: Service) -> None:
    for number, options in enumerate(({}, {"inline_bytes": 0})):
        take(here, callback(boxes("car"), is_test=True, task_id=f"task-{number}"), "live", **options)
    run_due_jobs(here)
    assert {row["environment"] for row in table(here, Task)} == {"test"}
    assert {row["environment"] for row in table(here, Delivery)} == {"test"}


# Batches.


@pytest.mark.parametrize(
    "body",
    [
        {"batch": "night", "status": "completed", "project": "streets"},
        {"batch": {"name": "night", "status": "completed", "project": "streets"}},
        {"name": "night", "status": "completed", "project": "streets", "callback": "https://example.com"},
        {"batch_name": "night", "status": "completed"},
    ],
)
def test_a_body_that_names_only_a_batch_updates_it(body: dict[str, Any], here: Service) -> None:
    assert take(here, json.dumps(body).encode()).status == "processed"
    batch = only(here, Batch)
    assert (batch["environment"], batch["name"], batch["status"]) == ("live", "night", "completed")
    assert batch["project"] == ("streets" if "project" in str(body) else None)
    assert batch["details"] == (body["batch"] if isinstance(body.get("batch"), dict) else body)
    assert only(here, Delivery)["event"] == "batch"
    assert table(here, Task) == []


def test_an_older_word_of_a_batch_changes_nothing(here: Service) -> None:
    for status, day in (("completed", 2), ("in_progress", 1)):
        body = {
            "batch": "night",
            "status": status,
            "updated_at": f"2026-01-0{day}T00:00:00Z",
            "project": "streets",
        }
        take(here, json.dumps(body).encode())
    assert only(here, Batch)["status"] == "completed"
    take(here, b'{"batch": "night", "status": "paused"}')
    assert (only(here, Batch)["status"], only(here, Batch)["project"]) == ("paused", "streets")


def test_the_words_of_a_batch_in_any_order_end_in_the_same_row(here: Service) -> None:
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
        empty(here)
        for word in order:
            take(here, json.dumps(word).encode())
        found.append(only(here, Batch))
    assert found == [found[0]] * 6
    assert (found[0]["status"], found[0]["project"]) == ("completed", "streets")


# A body without a task object.


def test_without_a_task_object_what_is_stored_of_the_task_counts(here: Service) -> None:
    take(here, callback(boxes("car"), type="polygonannotation"))
    take(
        here,
        json.dumps(
            {"task_id": TASK_ID, "response": {"annotations": [{"vertices": [{"x": 1, "y": 2}] * 3}]}}
        ).encode(),
    )
    assert sorted((row["type"], row["warning"] is None) for row in table(here, Annotation))[-1] == (
        "polygon",
        True,
    )
    assert only(here, Task)["type"] == "polygonannotation"
    assert table(here, Job) == []


def test_a_task_that_nobody_has_described_is_asked_for_once(here: Service) -> None:
    for n in range(3):
        take(here, json.dumps({"task_id": TASK_ID, "response": {"n": n}}).encode())
    assert [row["key"] for row in table(here, Job) if row["kind"] != queue.PLAN] == [f"complete:{TASK_ID}"]


def test_a_task_first_seen_without_its_description_is_completed_from_scale(
    open_service: Callable[..., Service], scale: ScaleSandbox
) -> None:
    created = scale.create(
        "annotation",
        key=scale.test_key,
        callback_url=scale.callback_url,
        attachment="https://example.com/a.png",
        objects_to_annotate=["car"],
        with_labels=True,
    )
    here = open_service(scale_api_url=scale.api_url, scale_test_api_key=scale.test_key)
    response = {"annotations": [{"label": "car", "left": 1, "top": 2, "width": 3, "height": 4}]}
    body = {"task_id": created["task_id"], "response": response, "status": "completed"}
    take(here, json.dumps(body).encode(), "test")
    assert only(here, Task)["type"] is None
    run_due_jobs(here)
    task = only(here, Task)
    assert (task["type"], task["environment"]) == ("annotation", "test")
    assert task["params"]["attachment"] == "https://example.com/a.png"
    assert sorted(row["kind"] for row in table(here, Delivery)) == ["callback", "reconciled"]
    first = next(row for row in table(here, Response) if row["response"] == response)
    mine = [row for row in table(here, Annotation) if row["response_id"] == first["id"]]
    assert [(row["type"], row["label"]) for row in mine] == [("box", "car")]
    assert table(here, Job) == []


def test_without_an_api_key_a_task_waits_to_be_completed(here: Service) -> None:
    take(here, json.dumps({"task_id": TASK_ID, "response": {}}).encode())
    run_due_jobs(here)
    job = only(here, Job)
    assert (job["state"], job["attempts"], job["last_error"]) == (
        "ready",
        0,
        "no API key for live tasks is set",
    )


# What is read later.


def test_a_large_body_is_only_stored_and_then_read_by_the_worker(here: Service) -> None:
    body = callback(boxes("car"))
    assert take(here, body, inline_bytes=len(body) - 1).status == "stored"
    assert table(here, Task) == []
    run_due_jobs(here)
    assert (only(here, Delivery)["status"], only(here, Task)["status"]) == ("processed", "completed")
    assert table(here, Job) == []


def test_a_large_body_is_read_as_a_small_one_is() -> None:
    odd = b'[1e400, 12345678901234567890, -1, 18446744073709551615, 1.0, "\\u0000", {"a": 1, "a": 2}]'
    for body in (odd, *(path.read_bytes() for path in RECORDED)):
        assert repr(parse_json(body + b" " * LARGE_BYTES)) == repr(parse_json(body))
    with pytest.raises(InvalidCallback, match="not JSON"):
        parse_json(b"{" + b" " * LARGE_BYTES)
    with pytest.raises(InvalidCallback, match="deeper"):
        parse_json(b"[" * 10_000 + b"]" * 10_000 + b" " * LARGE_BYTES)


def test_a_large_body_that_takes_longer_than_a_lease_to_read_stays_with_its_worker(
    here: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*given: Any) -> Any:
        assert not taken_over.wait(2.5)
        return parse_body(*given)

    def take_over() -> None:
        while not taken_over.wait(0.1) and len(table(here, Job)) == 1:
            if queue.claim(here.engine, 60) is not None:
                taken_over.set()

    taken_over = threading.Event()
    monkeypatch.setattr(replay, "parse_body", slowly)
    take(here, callback(boxes("car")), inline_bytes=0)
    job = queue.claim(here.engine, 1)
    assert job is not None
    other = threading.Thread(target=take_over)
    other.start()
    run_job(dataclasses.replace(here, settings=dataclasses.replace(here.settings, lease_seconds=1)), job)
    other.join()
    assert (only(here, Delivery)["status"], table(here, Job)) == ("processed", [])


def test_a_large_body_that_is_no_callback_is_quarantined_by_the_worker(here: Service) -> None:
    take(here, b"nothing at all", inline_bytes=3)
    run_due_jobs(here)
    assert "not JSON" in only(here, Delivery)["reason"]
    assert table(here, Job) == []


def test_a_replay_creates_nothing_twice_and_says_what_changed(here: Service) -> None:
    receipt = take(here, callback(boxes("car")))
    before = standing(here)
    assert replay.replay(here, receipt.delivery_id).changed == {}
    assert standing(here) == before


def test_a_replay_by_filter_goes_through_all_of_them_oldest_first_and_can_go_on(here: Service) -> None:
    ids = [take(here, callback(boxes("car"), task_id=f"task-{n}")).delivery_id for n in range(7)]
    take(here, b"{}")
    replay.IDS_BATCH_SIZE, before = 3, replay.IDS_BATCH_SIZE
    try:
        replays = list(replay.replay_many(here, Delivery.status == "processed"))
        rest = list(replay.replay_many(here, Delivery.status == "processed", after=ids[4]))
    finally:
        replay.IDS_BATCH_SIZE = before
    assert [delivery_id for delivery_id, _ in replays] == ids
    assert [delivery_id for delivery_id, _ in rest] == ids[5:]


def test_a_replay_of_a_delivery_that_is_not_known_is_an_error(here: Service) -> None:
    with pytest.raises(LookupError):
        replay.replay(here, queue.new_id())


def test_both_kinds_of_database_hold_the_same_rows_of_every_recorded_body(
    sqlite_url: str, postgres_url: str
) -> None:
    kinds = [
        Service.open(Settings(database_url=url, workflows_dir="nowhere", secret_key="s"))
        for url in (sqlite_url, postgres_url)
    ]
    for path in RECORDED:
        found = []
        for one in kinds:
            empty(one)
            take(one, path.read_bytes())
            found.append(standing(one, receipt=True))
        assert found[0] == found[1], path
    for one in kinds:
        one.engine.dispose()
