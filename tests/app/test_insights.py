"""The numbers in the API, the command and the console."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.app.commands.conftest import (  # noqa: F401
    Deliver,
    commands_of,
    deliver,
    make_app,
    workflows_dir,
)
from tests.app.console.conftest import Person

TOKEN = "a-token-of-the-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:  # noqa: F811
    return make_app(API_TOKEN=TOKEN)


@pytest.fixture
def service(app: Flask) -> Any:
    return app.extensions["weighbridge"]


def test_the_numbers_are_the_same_everywhere(app: Flask, deliver: Deliver) -> None:  # noqa: F811
    deliver("annotation/live_form", task_id="a-box-task", project="street")
    client = app.test_client()
    query = "group_by=project,status"
    found = client.get(f"/api/v1/insights?{query}", headers=HEADERS).json
    assert found["data"][0]["project"] == "street"
    assert found["data"][0]["created"] == 1
    assert client.get(f"/api/v1/stats?{query}", headers=HEADERS).json["data"] == found["data"]
    run = commands_of(app)
    assert json.loads(run("stats", "--group-by", "project,status", "--json").stdout)["data"] == found["data"]
    assert (
        run("stats", "--group-by", "project", "--csv")
        .stdout.splitlines()[0]
        .startswith("project,created,open")
    )
    assert run("stats", "--table", "labels", "--csv").stdout.startswith("week,label,annotations")
    assert "Nothing is counted" in run("stats", "--table", "label-changes").stdout
    assert "Krippendorff" in run("stats", "--definitions").stdout
    assert run("stats", "--group-by", "nothing").exit_code == 2
    assert run("tasks", "list", "--count", "--project", "street").stdout == "1\n"
    assert client.get("/api/v1/stats?group_by=nothing", headers=HEADERS).status_code == 400


def test_the_screen_shows_each_group_with_its_tasks_and_definitions(app: Flask, deliver: Deliver) -> None:  # noqa: F811
    deliver("annotation/live_form", task_id="a-box-task", project="street")
    person = Person(app)
    person.sign_in(TOKEN)
    shown = person.get("/insights", group_by="project").text
    assert "/console/insights/tasks?project=street&amp;number=created" in shown
    assert "a-box-task" in person.get("/insights/tasks", project="street", number="created").text
    assert "a-box-task" not in person.get("/insights/tasks", without="project", number="created").text
    assert person.get("/insights/tasks", number="nothing").status_code == 400
    labels = person.get("/insights", format="json", table="labels").json["data"]
    assert {row["label"] for row in labels} == {"sheep", "tractor"}
    assert "a-box-task" in person.get("/insights/tasks", number="created", label="sheep").text
    assert "first_pass_rate" in shown
    assert "<svg" in shown
    assert (
        person.get("/insights", format="csv")
        .text.splitlines()[0]
        .startswith("project,workflow,step,week,created")
    )
    assert person.get("/insights", group_by="nothing").status_code == 400
    assert person.get("/insights", since="soon").status_code == 400
