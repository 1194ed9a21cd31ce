"""Task objects of Scale's second API version: without a type, with threads, errors and reports, however they arrive."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from models import Delivery, Response, Task
from pipeline.service import Service
from pipeline.sync.imports import import_file
from pipeline.sync.reconcile import receive_differences
from tests.assertions import only
from tests.factories.callbacks import PAYLOADS, receive_callback

COMPLETED = json.loads((PAYLOADS / "chat" / "second_version_alone.json").read_text())
FAILED = json.loads((PAYLOADS / "chat" / "second_version_error_alone.json").read_text())


def by_callback(service: Service, task: dict[str, Any]) -> None:
    receive_callback(service, json.dumps(task).encode())


def by_wrapped_callback(service: Service, task: dict[str, Any]) -> None:
    by_callback(service, {"task_id": task["task_id"], "task": task})


def by_import(service: Service, task: dict[str, Any]) -> None:
    list(import_file(service, io.BytesIO(json.dumps([task]).encode()), "live"))


def by_reconcile(service: Service, task: dict[str, Any]) -> None:
    receive_differences(service, [task], "live", kind="reconciled")


WAYS = [by_callback, by_wrapped_callback, by_import, by_reconcile]
Way = Callable[[Service, dict[str, Any]], None]


@pytest.mark.parametrize("way", WAYS)
def test_a_completed_task_keeps_everything(way: Way, service: Service) -> None:
    way(service, COMPLETED)
    task, response = only(service, Task), only(service, Response)
    assert (task["project"], task["batch"], task["status"]) == ("harbor-chat", "spring", "completed")
    assert task["metadata"] == {"shift": "night"}
    assert task["created_at"].isoformat() == "2025-03-02T03:04:05.678000+00:00"
    assert task["completed_at"].isoformat() == "2025-03-03T03:04:05.678000+00:00"
    assert response["answer"]["threads"] == COMPLETED["threads"]
    assert response["answer"]["sensitive_content_reports"][0]["message"] == "A phone number is visible."
    assert response["error"] is None
    assert only(service, Delivery)["warnings"] is None


@pytest.mark.parametrize("way", WAYS)
def test_an_error_keeps_its_type_and_message(way: Way, service: Service) -> None:
    way(service, FAILED)
    assert only(service, Task)["status"] == "error"
    assert only(service, Response)["error"] == {"errors": FAILED["errors"]}
    assert only(service, Delivery)["event"] == "error"


def test_what_is_stored_is_not_received_again(service: Service) -> None:
    by_import(service, COMPLETED)
    assert receive_differences(service, [COMPLETED], "live", kind="reconciled") == []


def test_a_delivery_whose_values_end_in_no_column_carries_a_warning(service: Service) -> None:
    body = {"task_id": "t1", "response": {"category": "a"}, "delivery": {"attempt": 2}, "signature": "x"}
    by_callback(service, body)
    assert only(service, Delivery)["warnings"] == [
        "values that are in the raw body alone: 2 (delivery, signature)"
    ]
