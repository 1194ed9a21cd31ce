"""Attacks with an API token: bodies that cannot be stored, guessed tokens, answers that run as pages."""

import io
import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.blueprint import MAX_BODY_BYTES
from tests.security.conftest import TOKEN

# Bodies.

SUBSCRIBER = {"url": "https://example.com/hook", "events": ["task"]}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"url":' * 100_000,
        json.dumps({**SUBSCRIBER, "url": "https://example.com/\ud800"}).encode(),
        json.dumps({**SUBSCRIBER, "events": ["task\ud800"]}).encode(),
        json.dumps({**SUBSCRIBER, "url": "https://example.com/\0"}).encode(),
        json.dumps({**SUBSCRIBER, "events": ["task\0"]}).encode(),
        b'{"url": ' + b"1" * 5000 + b', "events": ["task"]}',
        b'{"url": NaN}',
        b"\xff\xfe",
        b"no JSON",
    ],
    ids=[
        "arrays",
        "objects",
        "surrogate",
        "surrogate-in-list",
        "nul",
        "nul-in-list",
        "digits",
        "nan",
        "bytes",
        "text",
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/subscribers", "/api/v1/tasks"])
def test_a_body_that_cannot_be_stored_is_answered_with_4xx(
    client: FlaskClient, path: str, body: bytes
) -> None:
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code in (400, 422), answer.text
    assert answer.content_type == "application/problem+json"


class CountedBody(io.BytesIO):
    """A body that counts how much of it was read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.taken += len(piece)
        return piece

    def readinto(self, buffer: Any, /) -> int:
        size = super().readinto(buffer)
        self.taken += size
        return size


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_above_the_limit_is_refused_unread(client: FlaskClient, is_chunked: bool) -> None:
    size = 3 * MAX_BODY_BYTES
    body = CountedBody(b'{"type": "annotation", "request": {"a": "' + b"x" * size + b'"}}')
    environ = {"CONTENT_LENGTH": str(size + 100)}
    if is_chunked:
        environ = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = client.post(
        "/api/v1/tasks", input_stream=body, content_type="application/json", environ_overrides=environ
    )
    assert answer.status_code == 413, answer.text
    assert answer.content_type == "application/problem+json"
    assert body.taken <= (MAX_BODY_BYTES if is_chunked else 0)


# Tokens.


def test_wrong_tokens_are_counted_logged_without_the_token_and_slowed_down(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    client = app.test_client()
    guess = "a-guess-that-must-not-be-logged"

    def attempt() -> Any:
        headers = {"Authorization": f"Bearer {guess}"}
        return client.get("/api/v1/tasks", headers=headers, environ_overrides={"REMOTE_ADDR": "203.0.113.9"})

    with caplog.at_level("WARNING"):
        statuses = [attempt().status_code for _ in range(40)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert attempt().headers["Retry-After"]
    assert "203.0.113.9" in str([record.__dict__ for record in caplog.records])
    assert guess not in str([record.__dict__ for record in caplog.records])
    assert len(caplog.records) < 20
    assert 'weighbridge_api_rejections_total{reason="token"}' in client.get("/metrics").text


def test_wrong_callback_keys_are_logged_seldom_with_their_address_and_never_slowed_down(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """Scale may share the address of a proxy with somebody who guesses."""
    guess = "a-guess-that-must-not-be-logged"

    def attempt() -> int:
        return (
            app.test_client()
            .post(
                "/callbacks/scale",
                data=b"{}",
                headers={"scale-callback-auth": guess},
                environ_overrides={"REMOTE_ADDR": "203.0.113.9"},
            )
            .status_code
        )

    with caplog.at_level("WARNING"):
        assert {attempt() for _ in range(100)} == {401}
    logged = [str(record.__dict__) for record in caplog.records]
    assert 0 < len(logged) < 10
    assert all("203.0.113.9" in line and guess not in line for line in logged)
    assert 'weighbridge_callbacks_total{status="401"}' in app.test_client().get("/metrics").text


def test_another_address_is_not_slowed_down_and_a_right_token_always_works(app: Flask) -> None:
    client = app.test_client()
    for _ in range(40):
        client.get(
            "/api/v1/tasks",
            environ_overrides={"REMOTE_ADDR": "203.0.113.7"},
            headers={"Authorization": "Bearer no"},
        )
    for address in ("203.0.113.8", "203.0.113.7"):
        answer = client.get(
            "/api/v1/tasks",
            environ_overrides={"REMOTE_ADDR": address},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert answer.status_code == 200, address


# Headers.


def test_no_answer_can_be_framed_sniffed_or_run_as_a_page(client: FlaskClient) -> None:
    for path in ("/api/v1/tasks", "/api/openapi.json", "/api/docs/", "/livez", "/readyz"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path


def test_the_documentation_page_runs_only_its_own_scripts(client: FlaskClient) -> None:
    policy = client.get("/api/docs/").headers["Content-Security-Policy"]
    scripts = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
    assert "'unsafe-inline'" not in scripts
    assert "'sha256-" in scripts


def test_doubled_slashes_are_not_redirected_to_the_host_of_the_sender(client: FlaskClient) -> None:
    answer = client.post("//callbacks//scale", headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert "Location" not in answer.headers


# The audit log.


def test_every_write_is_in_the_audit_log(client: FlaskClient) -> None:
    made = client.post("/api/v1/subscribers", json=SUBSCRIBER).json
    client.post(f"/api/v1/subscribers/{made['id']}/test")
    client.post("/api/v1/tasks", json={"type": "annotation", "request": {}})
    actions = [row["action"] for row in client.get("/api/v1/audit").json["data"]]
    assert {"subscriber.add", "subscriber.test", "tasks.submit"} <= set(actions)
