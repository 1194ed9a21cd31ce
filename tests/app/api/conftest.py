"""The API over a real database, and a factory that receives recorded bodies as the callback door does."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import insert

from app.application import create_app
from config import load_settings
from models import FollowUp
from pipeline.db.ids import new_id, utcnow
from pipeline.receive.receive import Receipt, receive
from pipeline.service import Service

PAYLOADS = Path(__file__).parent.parent.parent / "payloads"
TOKEN = "a-token-of-the-tests"

Deliver = Callable[..., Receipt]
Get = Callable[..., Any]
Plan = Callable[..., str]

POLYGONS = """
workflow: chain
steps:
  boxes:
    after: {type: polygonannotation}
    create:
      type: annotation
      params: {instruction: Draw, attachment_type: image, attachment: "${{ task.params.attachment }}",
               objects_to_annotate: [car], with_labels: true, layers: "${{ layers }}"}
"""


@pytest.fixture
def workflows_dir(tmp_path: Path) -> Path:
    """An empty folder of workflow files."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    return folder


@pytest.fixture
def app(database_url: str, tmp_path: Path, workflows_dir: Path) -> Iterator[Flask]:
    settings = load_settings(
        {
            "API_TOKEN": TOKEN,
            "SECRET_KEY": "secret",
            "DATABASE_URL": database_url,
            "ARTIFACT_STORE": str(tmp_path / "artifacts"),
            "WORKFLOWS_DIR": str(workflows_dir),
        }
    )
    made = create_app(settings)
    made.config["PROPAGATE_EXCEPTIONS"] = False
    yield made
    made.extensions["weighbridge"].engine.dispose()


@pytest.fixture
def service(app: Flask) -> Service:
    found: Service = app.extensions["weighbridge"]
    return found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client that brings a token with every scope."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


@pytest.fixture
def get(client: FlaskClient) -> Callable[..., Any]:
    """`get("/tasks", type="annotation")`: what the API answers with 200."""

    def get(path: str, **query: Any) -> Any:
        answer = client.get(f"/api/v1{path}", query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.json

    return get


@pytest.fixture
def deliver(service: Service) -> Deliver:
    """`deliver("annotation/accepted")` receives a recorded body.

    Keywords change its task object (`status="pending"`), `response=` its response, `task_id=` both places of the id.
    """

    def deliver(
        case: str | bytes, environment: str = "live", *, kind: str = "callback", **changes: Any
    ) -> Receipt:
        body = case if isinstance(case, bytes) else json.dumps(changed(case, changes)).encode()
        return receive(
            service,
            body,
            environment,
            headers={"User-Agent": "recorded"},
            kind=kind,
        )

    return deliver


def changed(case: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded body with some fields of its task object, or its response, replaced."""
    body: dict[str, Any] = json.loads((PAYLOADS / f"{case}.json").read_text())
    changes = dict(changes)
    if "response" in changes:
        body["response"] = changes.pop("response")
        body["task"].pop("response", None)
    if "task_id" in changes:
        body["task_id"] = changes["task_id"]
    if "status" in changes:
        body["status"] = changes["status"]
    if changes:
        body["task"].update(changes)
    return body


@pytest.fixture
def plan(service: Service) -> Plan:
    """`plan("held")` → the unique_id of a follow-up in that state."""

    def plan(state: str = "planned", **values: Any) -> str:
        row = {
            "unique_id": f"chain.boxes.{new_id().hex}",
            "id": new_id(),
            "workflow": "chain",
            "workflow_digest": "0" * 64,
            "step": "boxes",
            "state": state,
            "environment": "live",
            "source_task_id": "source",
            "task_type": "annotation",
            "request": {"instruction": "Draw"},
            "planned_at": utcnow(),
            **values,
        }
        with service.engine.begin() as connection:
            connection.execute(insert(FollowUp), [row])
        return str(row["unique_id"])

    return plan


def audited(get: Get, **query: str) -> list[tuple[str, str, str]]:
    """Oldest first."""
    entries = get("/audit", **query)["data"]
    return [(entry["actor"], entry["action"], entry["subject"]) for entry in reversed(entries)]
