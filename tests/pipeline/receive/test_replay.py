"""Deliveries that are parsed after they were answered: large ones, replayed ones, and tasks requested from Scale."""

import dataclasses
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from models import Annotation, Delivery, Job, Response, Task
from pipeline.jobs import queue
from pipeline.receive import replay
from pipeline.receive.receive import parse_body
from pipeline.service import Service
from sandbox.pytest_plugin import ScaleSandbox
from scale.envelope import LARGE_BYTES, InvalidCallback, parse_json
from tests.assertions import only, stored_rows, table
from tests.factories.callbacks import RECORDED, boxes, callback, receive_callback
from tests.factories.pipelines import ROOT
from workers.runner import run_due_jobs, run_job


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
    service = open_service(scale_api_url=scale.api_url, scale_test_api_key=scale.test_key)
    response = {"annotations": [{"label": "car", "left": 1, "top": 2, "width": 3, "height": 4}]}
    body = {"task_id": created["task_id"], "response": response, "status": "completed"}
    receive_callback(service, json.dumps(body).encode(), "test")
    assert only(service, Task)["type"] is None
    run_due_jobs(service)
    task = only(service, Task)
    assert (task["type"], task["environment"]) == ("annotation", "test")
    assert task["params"]["attachment"] == "https://example.com/a.png"
    assert sorted(row["kind"] for row in table(service, Delivery)) == ["callback", "reconciled"]
    first = next(row for row in table(service, Response) if row["response"] == response)
    mine = [row for row in table(service, Annotation) if row["response_id"] == first["id"]]
    assert [(row["type"], row["label"]) for row in mine] == [("box", "car")]
    assert table(service, Job) == []


def test_without_an_api_key_a_task_waits_to_be_completed(service: Service) -> None:
    receive_callback(service, json.dumps({"task_id": ROOT, "response": {}}).encode())
    run_due_jobs(service)
    job = only(service, Job)
    assert (job["state"], job["attempts"], job["last_error"]) == (
        "ready",
        0,
        "no API key for live tasks is set",
    )


def test_a_large_body_is_only_stored_and_then_read_by_the_worker(service: Service) -> None:
    body = callback(boxes("car"))
    assert receive_callback(service, body, inline_bytes=len(body) - 1).status == "stored"
    assert table(service, Task) == []
    run_due_jobs(service)
    assert (only(service, Delivery)["status"], only(service, Task)["status"]) == ("processed", "completed")
    assert table(service, Job) == []


def test_a_large_body_is_read_as_a_small_one_is() -> None:
    odd = b'[1e400, 12345678901234567890, -1, 18446744073709551615, 1.0, "\\u0000", {"a": 1, "a": 2}]'
    for body in (odd, *(path.read_bytes() for path in RECORDED)):
        assert repr(parse_json(body + b" " * LARGE_BYTES)) == repr(parse_json(body))
    with pytest.raises(InvalidCallback, match="not JSON"):
        parse_json(b"{" + b" " * LARGE_BYTES)
    with pytest.raises(InvalidCallback, match="deeper"):
        parse_json(b"[" * 10_000 + b"]" * 10_000 + b" " * LARGE_BYTES)


def test_a_large_body_that_takes_longer_than_a_lease_to_read_stays_with_its_worker(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*given: Any) -> Any:
        assert not taken_over.wait(7.5)
        return parse_body(*given)

    def take_over() -> None:
        while not taken_over.wait(0.1) and len(table(service, Job)) == 1:
            if queue.claim(service.engine, 60) is not None:
                taken_over.set()

    taken_over = threading.Event()
    monkeypatch.setattr(replay, "parse_body", slowly)
    receive_callback(service, callback(boxes("car")), inline_bytes=0)
    job = queue.claim(service.engine, 3)
    assert job is not None
    other = threading.Thread(target=take_over)
    other.start()
    run_job(
        dataclasses.replace(service, settings=dataclasses.replace(service.settings, lease_seconds=3)), job
    )
    other.join()
    assert (only(service, Delivery)["status"], table(service, Job)) == ("processed", [])


def test_a_large_body_that_is_no_callback_is_quarantined_by_the_worker(service: Service) -> None:
    receive_callback(service, b"nothing at all", inline_bytes=3)
    run_due_jobs(service)
    assert "not JSON" in only(service, Delivery)["reason"]
    assert table(service, Job) == []


def test_a_replay_creates_nothing_twice_and_says_what_changed(service: Service) -> None:
    receipt = receive_callback(service, callback(boxes("car")))
    before = stored_rows(service)
    assert replay.replay(service, receipt.delivery_id, "ana").changed == {}
    after = stored_rows(service)
    assert [row.pop("replayed_at") is None for row in (*before["tasks"], *after["tasks"])] == [True, False]
    assert after == before


def test_a_replay_by_filter_goes_through_all_of_them_oldest_first_and_can_go_on(service: Service) -> None:
    ids = [
        receive_callback(service, callback(boxes("car"), task_id=f"task-{n}")).delivery_id for n in range(7)
    ]
    receive_callback(service, b"{}")
    replay.IDS_BATCH_SIZE, before = 3, replay.IDS_BATCH_SIZE
    try:
        replays = list(replay.replay_many(service, "ana", Delivery.status == "processed"))
        rest = list(replay.replay_many(service, "ana", Delivery.status == "processed", after=ids[4]))
    finally:
        replay.IDS_BATCH_SIZE = before
    assert [delivery_id for delivery_id, _ in replays] == ids
    assert [delivery_id for delivery_id, _ in rest] == ids[5:]


def test_a_replay_of_a_delivery_that_is_not_known_is_an_error(service: Service) -> None:
    with pytest.raises(LookupError):
        replay.replay(service, queue.new_id(), "ana")
