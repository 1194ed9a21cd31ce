"""Completed box tasks, received as callbacks."""

import json
from typing import Any

import pytest

from pipeline.receive.receive import receive
from pipeline.service import Service
from tests.factories.datasets import Post


@pytest.fixture
def post(service: Service) -> Post:
    """`post("t1", [box("a")])` receives a completed task; keywords change its task object."""

    def one(
        task_id: str,
        boxes: list[dict[str, Any]] | None,
        *,
        at: str = "2026-01-02T00:00:00.000Z",
        attachment: str | None = None,
        environment: str = "live",
        **task: Any,
    ) -> None:
        body = {
            "task": {
                "task_id": task_id,
                "type": "annotation",
                "status": "completed",
                "metadata": {},
                "params": {
                    "attachment_type": "image",
                    "attachment": attachment or f"https://x/{task_id}.jpg",
                },
                "created_at": "2026-01-01T00:00:00.000Z",
                "completed_at": at,
                "updated_at": at,
                **task,
            },
            "task_id": task_id,
        }
        if boxes is not None:
            body["response"] = {"annotations": boxes}
        receive(service, json.dumps(body).encode(), environment)

    return one
