"""Callbacks to receive, valid but for what a test names."""

import json
from pathlib import Path
from typing import Any

from pipeline.receive.receive import Receipt, receive
from pipeline.service import Service

PAYLOADS = Path(__file__).parents[1] / "payloads"
RECORDED = sorted(
    path
    for path in PAYLOADS.glob("*/*.json")
    if not path.name.endswith(".expected.json") and path.with_suffix(".expected.json").exists()
)
BOX = {"type": "box", "label": "car", "uuid": "b1", "left": 1, "top": 2, "width": 3, "height": 4}


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


def receive_callback(service: Service, body: bytes, environment: str = "live", **options: Any) -> Receipt:
    """Receive a body as the callback endpoint does."""
    options = {
        "has_workflow_for": service.has_workflow_for,
        "inline_bytes": service.settings.inline_callback_bytes,
        **options,
    }
    return receive(service.engine, body, environment, **options)
