"""The first task of a pipeline, through the API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.application import create_app
from config import load_settings
from pipeline.follow_ups import decisions
from sandbox.pytest_plugin import ScaleSandbox, running_sandbox
from tests.app.api.conftest import TOKEN
from tests.service import ROOT

REQUEST = {
    "instruction": "?",
    "attachment_type": "text",
    "attachment": "tomato",
    "categories": ["red", "blue"],
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ScaleSandbox]:
    with running_sandbox(ROOT, None, "--memory", "--speed", "manual") as one:
        yield one


@pytest.fixture
def app(database_url: str, workflows_dir: Path, sandbox: ScaleSandbox) -> Iterator[Flask]:
    sandbox.reset()
    sandbox.clear_faults()
    env = {
        "API_TOKEN": TOKEN,
        "SECRET_KEY": "secret",
        "DATABASE_URL": database_url,
        "WORKFLOWS_DIR": str(workflows_dir),
        "SCALE_API_URL": sandbox.api_url,
        "SCALE_API_KEY": sandbox.live_key,
        "PUBLIC_URL": "http://127.0.0.1:9",
    }
    made = create_app(load_settings(env))
    yield made
    made.extensions["weighbridge"].engine.dispose()


def post(client: FlaskClient, **body: Any) -> Any:
    return client.post("/api/v1/tasks", json={"type": "categorization", "request": REQUEST, **body})


def test_the_same_request_twice_is_one_task(client: FlaskClient, sandbox: ScaleSandbox) -> None:
    first, second = post(client), post(client)
    assert (first.status_code, first.json["outcome"]) == (200, "created")
    assert second.json == {**first.json, "outcome": "already_exists"}
    assert [task["task_id"] for task in sandbox.tasks()] == [first.json["task_id"]]
    assert post(client, unique_id="mine").json["unique_id"] == "mine"


def test_what_scale_would_refuse_is_not_sent(client: FlaskClient, sandbox: ScaleSandbox) -> None:
    answer = post(client, request={**REQUEST, "categories": []})
    assert answer.status_code == 422
    assert "Scale would refuse the request" in answer.json["detail"]
    assert sandbox.tasks() == []


@pytest.mark.parametrize(
    ("fault", "settings", "status"),
    [("refused", {"status": 402}, 422), ("throttled", {"retry_after": 7}, 429), ("error_after", {}, 502), ("refused", {"status": 401}, 502)],
)  # fmt: skip
def test_what_scale_answers_is_passed_on_in_its_words(
    client: FlaskClient, sandbox: ScaleSandbox, fault: str, settings: dict[str, Any], status: int
) -> None:
    sandbox.add_fault(fault, times=1, **settings)
    answer = post(client)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert post(client).status_code == 200
    assert len(sandbox.tasks()) == 1


def test_nothing_is_created_while_creation_is_paused(
    app: Flask, client: FlaskClient, sandbox: ScaleSandbox
) -> None:
    with app.extensions["weighbridge"].engine.begin() as connection:
        decisions.pause_creation(connection, "ana")
    answer = post(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "60")
    assert sandbox.tasks() == []


def test_a_workflow_is_started_with_inputs_after_a_dry_run(client: FlaskClient, workflows_dir: Path) -> None:
    create = {"type": "categorization", "params": {**REQUEST, "attachment": "${{ row.text }}"}}
    step = {"start": {"columns": ["text"]}, "copies": 2, "create": create}
    (workflows_dir / "twice.yaml").write_text(json.dumps({"workflow": "twice", "steps": {"ask": step}}))

    def start(**body: Any) -> Any:
        return client.post("/api/v1/workflows/twice/inputs", json={"inputs": [{"text": "tomato"}], **body})

    preview = start(dry_run=True).json
    assert (preview["inputs"], preview["follow_ups"]) == ([], {"created": 2})
    assert preview["examples"][0]["request"]["attachment"] == "tomato"
    first, second = start().json, start().json
    assert [found["inputs"][0]["outcome"] for found in (first, second)] == ["created", "already_exists"]
    assert client.get(f"/api/v1/tasks/{first['inputs'][0]['task_id']}").json["type"] == "input"
    refused = start(inputs=[{"text": "tomato"}, {"city": "Bern"}])
    assert (refused.status_code, refused.json["detail"]) == (
        422, "1 invalid inputs; nothing was started. Input 2: has no text.",
    )  # fmt: skip
    other = client.post("/api/v1/workflows/nothing/inputs", json={"inputs": [{}]})
    assert other.status_code == 404
