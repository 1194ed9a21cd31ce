"""The cost of tasks in the commands, the API and the console, and what doctor says of a broken price list."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import insert

from models import FollowUp
from pipeline.db.ids import new_id, utcnow
from pipeline.service import Service
from tests.app.commands.conftest import (  # noqa: F401
    Deliver,
    commands_of,
    deliver,
    make_app,
    workflows_dir,
)
from tests.app.console.conftest import Person

TOKEN = "a-token-of-the-tests"
PRICES = "prices:\n- {type: annotation, task: 0.8}\n"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def app(make_app: Callable[..., Flask], tmp_path: Path) -> Flask:  # noqa: F811
    (tmp_path / "prices.yaml").write_text(PRICES)
    return make_app(
        PRICES_FILE=str(tmp_path / "prices.yaml"),
        LIMITS_FILE=str(tmp_path / "limits.yaml"),
        API_TOKEN=TOKEN,
        SCALE_API_KEY="live_key",
        PUBLIC_URL="https://example.com",
    )


@pytest.fixture
def service(app: Flask) -> Service:
    found: Service = app.extensions["weighbridge"]
    return found


@pytest.fixture
def held(service: Service) -> list[str]:
    """Three follow-ups that wait for approval, one of them of a type without a price."""
    rows = [
        {
            "unique_id": f"chain.boxes.{number}",
            "id": new_id(),
            "workflow": "chain",
            "workflow_digest": "0" * 64,
            "step": "boxes",
            "state": "held",
            "environment": "live",
            "source_task_id": "source",
            "task_type": task_type,
            "request": {"instruction": "Draw"},
            "planned_at": utcnow(),
        }
        for number, task_type in enumerate(("annotation", "annotation", "lidarannotation"))
    ]
    with service.engine.begin() as connection:
        connection.execute(insert(FollowUp), rows)
    return [str(row["unique_id"]) for row in rows]


def test_an_approval_names_its_cost_everywhere(app: Flask, held: list[str]) -> None:
    client = app.test_client()
    body: dict[str, Any] = {"workflow": "chain"}
    found = client.post("/api/v1/follow-ups/approve/preview", json=body, headers=HEADERS).json
    assert found["selected"] == 3
    assert found["cost"]["amount"] == 1.6
    assert found["cost"]["unpriced_tasks"] == 1
    summary = "$1.60 and 1 task of unknown cost: no price is set for lidarannotation"
    assert found["cost"]["summary"] == summary
    person = Person(app)
    person.sign_in(TOKEN)
    assert summary in person.get("/bulk-actions/new/follow-ups.approve", workflow="chain").text
    asked = commands_of(app)("follow-ups", "approve", "--workflow", "chain", input="n\n")
    assert summary in asked.output
    shown = client.get(f"/api/v1/follow-ups/{held[0]}", headers=HEADERS).json
    assert shown["state"] == "held"
    assert shown["cost"]["summary"] == "$0.80"


def test_a_submission_and_a_plan_name_their_cost(app: Flask, tmp_path: Path, deliver: Deliver) -> None:  # noqa: F811
    request = {"type": "annotation", "instruction": "Draw", "attachment": "https://example.com/a.png",
               "attachment_type": "image", "objects_to_annotate": ["car"], "with_labels": True}  # fmt: skip
    (tmp_path / "tasks.jsonl").write_text("\n".join(json.dumps({**request, "priority": n}) for n in (10, 20)))
    run = commands_of(app)
    assert "Cost: $1.60." in run("tasks", "submit", str(tmp_path / "tasks.jsonl"), "--check").output
    deliver("polygonannotation/polygons", task_id="polygons")
    task = "polygons"
    assert "Cost of what would be created: $0.80." in run("workflows", "plan", "--task", task).output
    assert "(cost: $0.80)" in run("workflows", "explain", task).output
    assert "committed: $0.00" in run("tasks", "tree", task).output
    (planned,) = json.loads(run("workflows", "plan", "--task", task, "--json").stdout)
    assert planned["cost"]["amount"] == 0.8


def test_doctor_names_the_line_of_a_broken_price_list(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("prices:\n- {type: annotation, task: much}\n")
    checks = json.loads(commands_of(app)("doctor", "--json").stdout)["checks"]
    (found,) = [check for check in checks if check["name"] == "prices"]
    assert found["state"] == "problem"
    assert "prices.yaml:2: prices[0].task: expected an amount" in found["message"]


def test_spend_is_the_same_in_the_command_and_the_api(
    app: Flask,
    deliver: Deliver,  # noqa: F811
    held: list[str],
) -> None:
    deliver("annotation/live_form", task_id="a-box-task")
    found = app.test_client().get("/api/v1/spend?by=step", headers=HEADERS).json
    command = json.loads(commands_of(app)("spend", "--by", "step", "--json").stdout)
    assert found == command
    assert {row["step"]: row["tasks"] for row in found["data"]} == {None: 1, "boxes": 3}
    assert found["total"]["planned"]["amount"] == 1.6
    assert found["total"]["spent"]["amount"] == 0.8
    assert {limit["scope"] for limit in found["limits"]} == {"workflow"}
    printed = commands_of(app)("spend").output
    assert "Total spent: $0.80." in printed
    assert "the limit of 10,000 tasks a day of polygons-to-boxes" in printed
    assert app.test_client().get("/api/v1/spend?by=nothing", headers=HEADERS).status_code == 400


def test_an_approval_is_counted_under_the_limits(app: Flask, tmp_path: Path, held: list[str]) -> None:
    (tmp_path / "limits.yaml").write_text("per_day: [1, $1]")
    client = app.test_client()
    assert client.post(f"/api/v1/follow-ups/{held[0]}/approve", headers=HEADERS).status_code == 200
    client.post("/api/v1/follow-ups/approve", json={"unique_ids": held[1:2]}, headers=HEADERS)
    limits = client.get("/api/v1/spend", headers=HEADERS).json["limits"]
    used = {limit["unit"]: limit["used"] for limit in limits if limit["scope"] == "installation"}
    assert used == {"tasks": 2, "USD": 1.6}
