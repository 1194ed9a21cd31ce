"""Who may ask, and what every refusal looks like."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from pipeline.access import tokens
from pipeline.service import Service
from tests.app.api.conftest import TOKEN

LISTS = (
    "tasks",
    "deliveries",
    "artifacts",
    "jobs",
    "follow-ups",
    "workflows",
    "batches",
    "creating",
    "audit",
)


def ask(client: FlaskClient, token: str | None, path: str = "/tasks", method: str = "GET") -> Any:
    headers = {} if token is None else {"Authorization": token}
    return client.application.test_client().open(f"/api/v1{path}", method=method, headers=headers)


def is_problem(answer: Any, status: int) -> bool:
    content = answer.get_json(force=True)
    return (
        answer.status_code == status
        and answer.content_type == "application/problem+json"
        and content["status"] == status
        and {"type", "title", "detail"} <= content.keys()
    )


@pytest.mark.parametrize("path", LISTS)
def test_every_resource_wants_a_token(client: FlaskClient, path: str) -> None:
    assert client.get(f"/api/v1/{path}").status_code == 200
    for token in (None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer \udcff"):
        answer = ask(client, token, f"/{path}")
        assert is_problem(answer, 401), token
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_issued_token_may_what_its_scopes_say(client: FlaskClient, service: Service) -> None:
    with service.engine.begin() as connection:
        reader = tokens.issue(connection, "reader", ["read"], actor="test")
        writer = tokens.issue(connection, "writer", ["write"], actor="test")
    assert ask(client, f"Bearer {reader}").status_code == 200
    assert is_problem(ask(client, f"Bearer {reader}", "/creating/stop", "POST"), 403)
    assert is_problem(ask(client, f"Bearer {writer}"), 403)
    assert ask(client, f"bearer {writer}", "/creating/start", "POST").status_code == 200


def test_a_revoked_token_is_no_token(client: FlaskClient, service: Service) -> None:
    with service.engine.begin() as connection:
        token = tokens.issue(connection, "somebody", actor="test")
    assert ask(client, f"Bearer {token}").status_code == 200
    with service.engine.begin() as connection:
        assert tokens.revoke(connection, "somebody", actor="test") == 1
    assert is_problem(ask(client, f"Bearer {token}"), 401)


def test_a_token_is_kept_as_its_digest_only(service: Service) -> None:
    with service.engine.begin() as connection:
        token = tokens.issue(connection, "somebody", ["read"], actor="test")
        rows = connection.exec_driver_sql("SELECT * FROM api_tokens").all()
    assert token not in str(rows)
    assert tokens.digest(token) in str(rows)


def test_a_scope_that_there_is_not_is_refused(service: Service) -> None:
    with service.engine.begin() as connection, pytest.raises(ValueError, match="root"):
        tokens.issue(connection, "somebody", ["read", "root"], actor="test")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/api/v1/nothing", "GET", 404),
        ("/api/nothing", "GET", 404),
        ("/api/v1/tasks/nobody", "GET", 404),
        ("/api/v1/tasks/%00", "GET", 404),
        ("/api/v1/deliveries/no-uuid", "GET", 404),
        ("/api/v1/batches", "POST", 405),
        ("/api/v1/jobs/0190d7a8-0000-7000-8000-000000000000/retry", "GET", 405),
        ("/api/v1/tasks?limit=0", "GET", 400),
        ("/api/v1/tasks?limit=1001", "GET", 400),
        ("/api/v1/tasks?limit=many", "GET", 400),
        ("/api/v1/tasks?environment=moon", "GET", 400),
        ("/api/v1/tasks?updated_since=yesterday", "GET", 400),
        ("/api/v1/tasks?updated_since=0001-01-01T00:00:00%2B14:00", "GET", 400),
        ("/api/v1/tasks?type=%00", "GET", 400),
        ("/api/v1/tasks?colour=red", "GET", 400),
        ("/api/v1/jobs?state=tired", "GET", 400),
    ],
)
def test_what_cannot_be_done_is_a_problem_that_says_why(
    client: FlaskClient, path: str, method: str, status: int
) -> None:
    answer = client.open(path, method=method)
    assert is_problem(answer, status), answer.text
    if status == 405:
        assert answer.headers["Allow"]
    if status == 400 and "%00" not in path:
        name = path.partition("?")[2].partition("=")[0]
        assert name in answer.json["errors"]
        assert name in answer.json["detail"]


def test_an_unknown_filter_is_refused_with_the_known_ones(client: FlaskClient) -> None:
    answer = client.get("/api/v1/tasks?colour=red")
    assert "Allowed: batch, completed_before, completed_since, cursor, environment, " in answer.json["detail"]
    body = client.post("/api/v1/subscribers", json={"adress": "https://example.com"})
    assert body.json["errors"]["adress"][-1] == (
        "Allowed: events, headers, project, secret, step, url, with_result, workflow."
    )


@pytest.mark.parametrize("cursor", ["nonsense", "bnVsbA", "WzFd", "WyJ4Il0", "W10", "ÿ", "[]", "a" * 5000])
def test_an_invalid_cursor_is_refused_with_the_way_out(client: FlaskClient, cursor: str) -> None:
    for path in ("tasks", "deliveries", "batches"):
        answer = client.get(f"/api/v1/{path}", query_string={"cursor": cursor})
        assert is_problem(answer, 400)
        assert "omit it" in answer.json["detail"]


def test_a_failure_of_ours_is_a_problem_that_tells_nothing(client: FlaskClient) -> None:
    def fail() -> None:
        raise RuntimeError("a secret")

    client.application.before_request_funcs.setdefault("tasks", []).append(fail)
    answer = client.get("/api/v1/tasks")
    assert is_problem(answer, 500)
    assert "secret" not in answer.text


def test_a_database_that_is_away_is_503_and_a_time_to_wait(client: FlaskClient, service: Service) -> None:
    def refuse(*_: Any) -> None:
        raise OperationalError("SELECT", {}, Exception("the server closed the connection"))

    event.listen(service.engine, "before_cursor_execute", refuse)
    answer = client.get("/api/v1/tasks")
    assert is_problem(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert "closed" not in answer.text


def test_errors_outside_the_api_stay_as_they_were(client: FlaskClient) -> None:
    answer = client.get("/nothing")
    assert answer.status_code == 404
    assert answer.mimetype == "text/html"
