"""Tokens that are bound to projects: what they see and act on, and that everything else is refused."""

from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from app.api.tokens import PROJECT_CALLS, PROJECT_LISTS
from models import Delivery, FollowUp, Task
from pipeline.access import tokens
from pipeline.service import Service
from tests.app.api.conftest import POLYGONS, app, service, workflows_dir
from tests.assertions import table
from tests.factories.callbacks import callback, receive_callback
from workers.runner import run_due_jobs

__all__ = ["app", "service", "workflows_dir"]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
OURS, OTHERS = "street scenes", "harbour"


@pytest.fixture
def ask(app: Flask, service: Service, workflows_dir: Any) -> Any:
    """Call the API with a token that is bound to OURS; each project has a task with a follow-up."""
    (workflows_dir / "chain.yaml").write_text(POLYGONS)
    drawn = {
        "annotations": [{"label": "car", "vertices": [{"x": 1, "y": 2}, {"x": 3, "y": 4}, {"x": 5, "y": 9}]}]
    }
    for project in (OURS, OTHERS):
        fields = {"task_id": f"of-{project[:6]}", "type": "polygonannotation", "project": project}
        receive_callback(service, callback(drawn, **fields))
    run_due_jobs(service)
    with service.engine.begin() as connection:
        tokens.issue(connection, "team", ["read", "operate"], actor="test", projects=[OURS])
        token = tokens.rotate(connection, "team", actor="test", overlap=tokens.LINK_MAX_AGE)

    def call(path: str, method: str = "GET", **query: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return app.test_client().open(f"/api/v1{path}", method=method, headers=headers, query_string=query)

    return call


def test_it_sees_the_tasks_of_its_project_and_no_others(ask: Any) -> None:
    assert [one["project"] for one in ask("/tasks", project=OURS).json["data"]] == [OURS]
    assert ask("/tasks", project=OTHERS).status_code == 404
    assert ask("/tasks").status_code == 403
    assert ask("/tasks", project=[OURS, OTHERS]).status_code == 403
    assert ask("/tasks", project=OURS, task_id="of-harbou").status_code == 403
    assert ask("/tasks/of-street").json["project"] == OURS
    assert ask("/tasks/of-street/annotations").status_code == 200
    for path in ("", "/annotations", "/responses", "/responses/1/content"):
        unknown = ask(f"/tasks/unknown{path}")
        hidden = ask(f"/tasks/of-harbou{path}")
        assert (hidden.status_code, hidden.data) == (unknown.status_code, unknown.data) == (404, hidden.data)


def test_it_acts_on_deliveries_and_follow_ups_of_its_project_only(ask: Any, service: Service) -> None:
    deliveries = {row["task_id"]: row["id"] for row in table(service, Delivery)}
    assert ask(f"/deliveries/{deliveries['of-street']}/body").status_code == 200
    assert ask(f"/deliveries/{deliveries['of-harbou']}/body").status_code == 404
    assert [one["task_id"] for one in ask("/deliveries", task_id="of-street").json["data"]] == ["of-street"]
    assert ask("/deliveries", task_id="of-harbou").status_code == 404
    follow_ups = {row["source_task_id"]: row["unique_id"] for row in table(service, FollowUp)}
    assert ask(f"/follow-ups/{follow_ups['of-street']}/cancel", "POST").status_code == 200
    assert ask(f"/follow-ups/{follow_ups['of-harbou']}/cancel", "POST").status_code == 404
    states = {row["source_task_id"]: row["state"] for row in table(service, FollowUp)}
    assert states["of-street"] == "canceled" != states["of-harbou"]


def test_every_call_that_is_not_limited_to_a_project_is_refused(
    ask: Any, app: Flask, service: Service
) -> None:
    task = next(row for row in table(service, Task) if row["project"] == OTHERS)
    ids = {"task_id": task["task_id"], "number": 1, "name": "chain", "reference": "x", "join_id": "x"}
    called = 0
    for rule in app.url_map.iter_rules():
        if not rule.rule.startswith("/api/v1/"):
            continue
        for method in (rule.methods or set()) & {"GET", "POST", "DELETE"}:
            answer = ask(address(rule, ids), method)
            expected = 404 if rule.endpoint in PROJECT_CALLS else 403
            assert answer.status_code == expected, (method, rule.rule)
            called += 1
    assert called > 60
    assert {rule.endpoint for rule in app.url_map.iter_rules()} >= PROJECT_CALLS | PROJECT_LISTS


def address(rule: Rule, ids: dict[str, Any]) -> str:
    """Return an address of a rule, with ids of another project or of nothing."""
    path = rule.rule.removeprefix("/api/v1")
    for name in rule.arguments:
        value = ids.get(name, "019a1946-7e80-7000-8000-000000000000")
        kind = next(part for part in ("uuid", "string", "int") if f"<{part}:{name}>" in path)
        path = path.replace(f"<{kind}:{name}>", str(value))
    return path
