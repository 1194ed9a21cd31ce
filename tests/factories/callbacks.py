"""Callbacks to receive, valid but for what a test names."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import time_machine

from pipeline.db.ids import first_id_at, new_id, utcnow
from pipeline.receive.receive import Receipt, parse_body, receive, receive_in_steps
from pipeline.receive.rows import DeliveryMeta
from pipeline.service import Service

PAYLOADS = Path(__file__).parents[1] / "payloads"
RECORDED = sorted(
    path
    for path in PAYLOADS.glob("*/*.json")
    if not path.name.endswith(".expected.json") and path.with_suffix(".expected.json").exists()
)
BOX = {"type": "box", "label": "car", "uuid": "b1", "left": 1, "top": 2, "width": 3, "height": 4}


def at(hour: int) -> str:
    """An hour of the day of the callbacks here, as Scale writes it."""
    return f"2026-01-01T{hour}:00:00.000Z"


def task(**fields: Any) -> dict[str, Any]:
    return {
        "task_id": "5f1e9b000000000000000001",
        "type": "imageannotation",
        "status": "completed",
        "params": {"attachment": "https://example.com/street.png"},
        "created_at": "2026-01-01T09:00:00.000Z",
        "updated_at": "2026-01-01T10:00:00.000Z",
        "completed_at": "2026-01-01T10:00:00.000Z",
        **fields,
    }


def callback(response: Any = None, outer: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """A body as Scale sends it. `fields` are the task's, `outer` those of the envelope."""
    described = task(**fields)
    if response is not None:
        described["response"] = response
    body = {"task": described, "task_id": described["task_id"], **(outer or {})}
    if response is not None:
        body.setdefault("response", response)
    return json.dumps(body).encode()


def boxes(*labels: str) -> dict[str, Any]:
    return {"annotations": [{**BOX, "label": label, "uuid": f"b{n}"} for n, label in enumerate(labels)]}


def receive_by_general_path(service: Service, body: bytes, environment: str = "live") -> Receipt:
    """Receive a body as if the fast path did not exist."""
    delivery = DeliveryMeta(new_id(), "callback", environment, utcnow())
    return receive_in_steps(service, delivery, body, {}, parse_body(body, environment))


def receive_callback(service: Service, body: bytes, environment: str = "live", **options: Any) -> Receipt:
    """Receive a body as the callback endpoint does. `inline_bytes` replaces INLINE_CALLBACK_BYTES."""
    if (inline_bytes := options.pop("inline_bytes", None)) is not None:
        service = replace(service, settings=replace(service.settings, inline_callback_bytes=inline_bytes))
    return receive(service, body, environment, **options)


@contextmanager
def received_at(moment: datetime) -> Iterator[None]:
    """Let it be `moment` while the block runs, also for the ids of deliveries, which are made outside of Python."""

    def travelled_id() -> UUID:
        return UUID(int=first_id_at(moment).int | new_id().int % (1 << 80))

    with (
        time_machine.travel(moment, tick=False),
        mock.patch("pipeline.receive.receive.new_id", travelled_id),
    ):
        yield
