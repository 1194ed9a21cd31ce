"""The service of the pipeline's tests, and its API, for attacks that do not need processes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.application import create_app
from config import load_settings
from pipeline.receive.receive import receive
from pipeline.service import Service
from tests.pipeline.conftest import (
    certificate,
    open_pipeline,
    open_service,
    sandbox,
    scale_process,
    service,
)

__all__ = ["certificate", "open_pipeline", "open_service", "sandbox", "scale_process", "service"]

TOKEN = "a-token-of-the-tests-with-many-characters"


@pytest.fixture
def app(database_url: str, tmp_path: Path) -> Iterator[Flask]:
    (tmp_path / "workflows").mkdir()
    settings = load_settings(
        {
            "API_TOKEN": TOKEN,
            "SECRET_KEY": "secret",
            "DATABASE_URL": database_url,
            "ARTIFACT_STORE": str(tmp_path / "artifacts"),
            "WORKFLOWS_DIR": str(tmp_path / "workflows"),
            "INLINE_CALLBACK_BYTES": str(64 * 1024 * 1024),
            "SUBSCRIBER_HOSTS": "example.com",
            "PUBLIC_URL": "https://weighbridge.example",
        }
    )
    made = create_app(settings)
    made.config["PROPAGATE_EXCEPTIONS"] = False
    yield made
    made.extensions["weighbridge"].engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


@pytest.fixture
def deliver(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`deliver("t", response={…}, metadata={…})` receives a completed annotation task, and applies it at once."""
    monkeypatch.setattr("pipeline.receive.receive.MAX_INLINE_VALUES", 10**9)
    service: Service = app.extensions["weighbridge"]

    def one(task_id: str, response: Any, **task: Any) -> None:
        body = {
            "task_id": task_id,
            "response": response,
            "task": {"task_id": task_id, "type": "annotation", "status": "completed", **task},
        }
        receive(service, json.dumps(body).encode(), "live")

    return one
