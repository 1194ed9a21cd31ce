"""Attacks with the body of a callback: small ones that cost much memory, many jobs or much time."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from models import Artifact, Delivery, Job, Task
from pipeline.receive import receive
from pipeline.service import Service
from scale import envelope
from scale.envelope import MAX_JSON_TOKENS, InvalidCallback, parse_callback, parse_json
from scale.task_types import parse_response
from tests.assertions import only, table
from tests.counting import calls
from tests.factories.callbacks import callback, receive_callback
from workers.runner import run_due_jobs

MANY: dict[str, Callable[[], bytes]] = {
    "empty objects": lambda: b"[" + b"{}," * (MAX_JSON_TOKENS // 2) + b"{}]",
    "empty lists": lambda: b"[" + b"[]," * (MAX_JSON_TOKENS // 2) + b"[]]",
    "numbers": lambda: b"[" + b"1," * MAX_JSON_TOKENS + b"1]",
    "keys": lambda: b"{" + b",".join(b'"%d":1' % n for n in range(MAX_JSON_TOKENS // 2 + 1)) + b"}",
}


@pytest.mark.parametrize("make_body", MANY.values(), ids=MANY)
def test_a_body_of_too_many_values_is_refused_before_one_is_built(
    make_body: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = make_body()

    def fails(*_: Any, **__: Any) -> None:
        pytest.fail("it was parsed")

    monkeypatch.setattr(orjson, "loads", fails)
    monkeypatch.setattr(json, "loads", fails)
    with pytest.raises(InvalidCallback, match=r"JSON tokens; at most 6,000,000 are parsed"):
        parse_json(body)


def test_a_large_honest_body_is_parsed() -> None:
    """Ten thousand polygons of twenty vertices."""
    polygon = {"type": "polygon", "label": "car", "vertices": [{"x": 1.5, "y": 2.5}] * 20}
    body = callback({"annotations": [polygon] * 10_000})
    found = parse_callback(body, "live")
    assert len(found.response["annotations"]) == 10_000


def test_a_body_of_too_many_values_is_quarantined_whole(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "LARGE_BYTES", 1_000)
    monkeypatch.setattr(envelope, "MAX_JSON_TOKENS", 1_000)
    body = callback({"annotations": [{}] * 1_000})
    assert receive_callback(service, body).status == "quarantined"
    delivery = only(service, Delivery)
    assert delivery["size_bytes"] == len(body)
    assert "at most 1,000 are parsed" in delivery["reason"]


def test_a_small_body_of_many_values_is_parsed_by_the_worker(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = callback({"annotations": [{}] * 1_000})
    monkeypatch.setattr(receive, "MAX_INLINE_VALUES", body.count(b",") - 1)
    assert receive_callback(service, body).status == "stored"
    run_due_jobs(service)
    assert only(service, Delivery)["status"] == "processed"
    monkeypatch.setattr(receive, "MAX_INLINE_VALUES", body.count(b","))
    assert receive_callback(service, body + b" ").status == "processed"


def test_a_response_that_names_too_many_files_is_quarantined_without_a_job(service: Service) -> None:
    images = {"labeled": {"c": [f"https://files.example/{number}" for number in range(10_001)]}}
    body = callback({"annotations": images, "labelMapping": {}}, type="segmentannotation")
    assert receive_callback(service, body, inline_bytes=len(body)).status == "quarantined"
    assert only(service, Delivery)["reason"] == "the response names 10,001 files; at most 10,000 are fetched"
    assert table(service, Artifact) == []
    assert table(service, Job) == []


@pytest.mark.parametrize(
    "name", ["type", "status", "project", "batch", "unique_id", "urgency", "customer_review_status"]
)
def test_a_word_that_tasks_are_grouped_by_has_a_bound(service: Service, name: str) -> None:
    body = callback({"a": 1}, **{name: "x" * 10_001})
    assert receive_callback(service, body).status == "processed"
    (warning,) = only(service, Delivery)["warnings"]
    assert warning == f"task.{name} has 10,001 characters, more than 10,000"
    assert "x" * 10_001 not in only(service, Task).values()  # `extra` keeps it


def boxes(n: int) -> bytes:
    return callback({"annotations": [{"type": "box", "left": 1, "top": 2, "width": 3, "height": 4}] * n})


def masks(n: int) -> bytes:
    mapping = {f"label {k}": [{"index": k}] for k in range(n)}
    return callback({"annotations": {}, "labelMapping": mapping}, type="segmentannotation")


def answers(n: int) -> bytes:
    return callback({"fields": {f"k{k}": "x" for k in range(n)}}, type="transcription")


def reviews(n: int) -> bytes:
    return callback({"a": 1}, audits=[{"audited_at": "2021-05-11T08:00:00Z", "audit_result": "fixed"}] * n)


def envelopes(n: int) -> bytes:
    return callback({"a": 1}, outer={f"k{k}": k for k in range(n)})


@pytest.mark.parametrize("form", [boxes, masks, answers, reviews, envelopes], ids=lambda form: form.__name__)
def test_a_body_of_twice_the_size_takes_twice_the_work(form: Callable[[int], bytes]) -> None:
    def work(n: int) -> int:
        body = form(n)

        def parse() -> None:
            found = parse_callback(body, "live")
            parse_response(found.task and found.task.type, found.response, found.task and found.task.params)

        return calls(parse)

    work(10)
    once, twice = work(1_000), work(2_000)
    assert twice <= 2.2 * once
