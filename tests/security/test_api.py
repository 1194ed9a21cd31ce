"""Attacks with an API token: answers without a bound, comparisons that take minutes, bodies that cannot be stored."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api.blueprint import MAX_BODY_BYTES
from app.application import create_app
from config import load_settings
from pipeline.operations.diff import MAX_COMPARISONS, TooDense, diff
from pipeline.operations.queries.paging import MAX_PAGE_CHARACTERS
from pipeline.operations.queries.responses import MAX_COMPARED_CHARACTERS
from pipeline.operations.queries.sizes import MAX_VALUE_CHARACTERS
from pipeline.receive.receive import receive
from pipeline.service import Service
from scale.annotations import Annotation

TOKEN = "a-token-of-the-tests-with-many-characters"
MEGABYTE = "x" * 1_000_000


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
def deliver(app: Flask) -> Callable[..., None]:
    """`deliver("t", response={…}, metadata={…})` receives a completed annotation task."""
    service: Service = app.extensions["weighbridge"]

    def one(task_id: str, response: Any, **task: Any) -> None:
        body = {
            "task_id": task_id,
            "response": response,
            "task": {"task_id": task_id, "type": "annotation", "status": "completed", **task},
        }
        receive(service, json.dumps(body).encode(), "live")

    return one


def pages(client: FlaskClient, path: str, limit: int = 1000) -> Iterator[tuple[int, list[Any]]]:
    """Size and rows of each page of a list."""
    cursor: str | None = None
    while True:
        answer = client.get(path, query_string={"limit": limit, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        yield len(answer.data), answer.json["data"]
        cursor = answer.json["next_cursor"]
        if cursor is None:
            return


# Answers.


def test_a_page_of_large_annotations_is_bounded_in_bytes_and_loses_none(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    boxes = [
        {
            "type": "box",
            "label": "x",
            "left": n,
            "top": 0,
            "width": 1,
            "height": 1,
            "attributes": {"a": MEGABYTE},
        }
        for n in range(20)
    ]
    deliver("t", {"annotations": boxes})
    found = list(pages(client, "/api/v1/tasks/t/annotations"))
    assert len(found) > 1
    assert all(size < MAX_PAGE_CHARACTERS + 2 * len(MEGABYTE) for size, _ in found)
    assert [row["position"] for _, rows in found for row in rows] == list(range(20))


def test_versions_that_would_fill_the_memory_are_not_compared(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    box = {"type": "box", "label": "x", "left": 1, "top": 0, "width": 1, "height": 1}
    for number in (1, 2):
        large = {"a": "x" * (MAX_COMPARED_CHARACTERS // 4), "number": number}
        deliver("t", {"annotations": [{**box, "attributes": large}] * 4})
    answer = client.get("/api/v1/tasks/t/responses/2/diff")
    assert (answer.status_code, "too large to be compared" in answer.text) == (400, True)


def test_a_page_of_tasks_with_large_metadata_is_bounded(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    for number in range(12):
        deliver(f"t{number}", {"annotations": []}, metadata={"a": MEGABYTE})
    found = list(pages(client, "/api/v1/tasks"))
    assert len(found) > 1
    assert all(size < MAX_PAGE_CHARACTERS + 2 * len(MEGABYTE) for size, _ in found)
    assert {row["task_id"] for _, rows in found for row in rows} == {f"t{number}" for number in range(12)}


def test_a_large_response_is_left_out_of_json_and_can_be_downloaded(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    response = {"answer": ["a" * 20] * (MAX_VALUE_CHARACTERS // 20)}
    deliver("t", response)
    for path in ("/api/v1/tasks/t", "/api/v1/tasks/t/responses", "/api/v1/tasks/t/responses/1"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert len(answer.data) < 20_000, path
    assert client.get("/api/v1/tasks/t").json["left_out"] == ["answer"]
    (summary,) = client.get("/api/v1/tasks/t/responses").json["data"]
    assert summary["response"] is None
    assert summary["response_characters"] > MAX_VALUE_CHARACTERS
    assert json.loads(client.get("/api/v1/tasks/t/responses/1/content").data) == response


def test_a_small_response_is_in_the_list_and_nothing_is_left_out(
    client: FlaskClient, deliver: Callable[..., None]
) -> None:
    deliver("t", {"annotations": []})
    assert client.get("/api/v1/tasks/t").json["left_out"] == []
    assert client.get("/api/v1/tasks/t/responses").json["data"][0]["response"] == {"annotations": []}


@pytest.mark.parametrize("endpoint", ["plan", "explain"])
def test_a_large_task_is_not_planned_in_the_web_process(
    client: FlaskClient, deliver: Callable[..., None], endpoint: str
) -> None:
    deliver("t", {"answer": [MEGABYTE] * 12})
    answer = client.get(f"/api/v1/tasks/t/{endpoint}")
    assert answer.status_code == 409
    assert "weighbridge workflows plan" in answer.json["detail"]


# Comparisons.


def boxes(number: int, offset: int) -> list[Annotation]:
    """Boxes that all overlap."""
    return [
        Annotation(
            n,
            "box",
            "x",
            None,
            None,
            None,
            {"left": n / 100 + offset / 1000, "top": 0, "width": 900, "height": 900},
            None,
        )
        for n in range(number)
    ]


def points(number: int, offset: int) -> list[Annotation]:
    """Points within a few pixels of each other."""
    return [
        Annotation(n, "point", "x", None, None, None, {"x": n % 5 + offset, "y": offset}, None)
        for n in range(number)
    ]


@pytest.mark.parametrize("shapes", [boxes, points])
def test_versions_that_all_overlap_are_refused_before_they_are_compared(
    shapes: Callable[[int, int], list[Annotation]],
) -> None:
    number = int(MAX_COMPARISONS**0.5) + 10
    with pytest.raises(TooDense):
        diff(shapes(number, 0), shapes(number, 1))


@pytest.mark.parametrize("shapes", [boxes, points])
def test_dense_versions_below_the_bound_are_compared(shapes: Callable[[int, int], list[Annotation]]) -> None:
    found = diff(shapes(300, 0), shapes(300, 1))
    assert len(found.moved) + len(found.added) + found.unchanged == 300
    assert len(found.added) == len(found.removed)


def test_a_dense_comparison_is_answered_with_400(client: FlaskClient, deliver: Callable[..., None]) -> None:
    number = int(MAX_COMPARISONS**0.5) + 10

    def annotations(offset: int) -> list[dict[str, Any]]:
        return [
            {"label": "x", "left": n / 100 + offset / 1000, "top": 0, "width": 900, "height": 900}
            for n in range(number)
        ]

    deliver("t", {"annotations": annotations(0)}, updated_at="2026-01-01T00:00:00Z")
    deliver("t", {"annotations": annotations(1)}, updated_at="2026-01-02T00:00:00Z")
    answer = client.get("/api/v1/tasks/t/responses/2/diff")
    assert answer.status_code == 400
    assert "comparisons" in answer.json["detail"]


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
