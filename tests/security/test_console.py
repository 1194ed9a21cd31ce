"""Attacks on the console: sign-in, roles, forged forms, costly forms and cookies, and files that it shows."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from pipeline.access import tokens
from pipeline.operations.queries.audit import list_audit_entries
from pipeline.service import Service
from tests.app.api.conftest import TOKEN, app, service, workflows_dir
from tests.app.console.conftest import Person, admin, signed_in, stranger
from tests.security.test_workflow_files import SPECIAL_FILES, make_special_file

__all__ = ["admin", "app", "service", "signed_in", "stranger", "workflows_dir"]


def test_without_a_session_every_address_leads_to_the_sign_in_page(stranger: Person) -> None:
    answer = stranger.get("/tasks", type="annotation")
    assert answer.status_code == 302
    assert answer.location == "/console/sign-in?next=/console/tasks?type%3Dannotation"
    assert stranger.client.get("/").location == "/console/"


def test_signing_in_leads_to_where_one_wanted_to_go_on_this_host_only(stranger: Person) -> None:
    wanted = stranger.post("/sign-in?next=/console/tasks%3Ftype%3Dannotation", token=TOKEN)
    assert wanted.location == "/console/tasks?type=annotation"
    for elsewhere in (
        "https://evil.example/console/",
        "//evil.example",
        "/console/../",
        "/console//evil.example",
        "\\\\evil",
    ):
        answer = stranger.post(f"/sign-in?next={elsewhere}", token=TOKEN)
        assert answer.location.startswith("/console/")
        assert "evil" not in answer.location


def test_the_cookie_is_http_only_and_does_not_hold_the_token(stranger: Person) -> None:
    cookie = stranger.sign_in(TOKEN).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert TOKEN not in cookie


def test_a_wrong_token_is_refused_and_not_repeated(stranger: Person) -> None:
    answer = stranger.sign_in("wb_wrong-token")
    assert answer.status_code == 401
    assert "unknown or revoked" in answer.text
    assert "wb_wrong-token" not in answer.text


def test_an_unauthenticated_form_is_limited_to_4_kilobytes(stranger: Person) -> None:
    answer = stranger.client.post("/console/sign-in", data={"token": "x" * 5000})
    assert answer.status_code == 413
    chunked = stranger.client.post(
        "/console/sign-out",
        input_stream=io.BytesIO(b"a=&" * 2000),
        content_type="application/x-www-form-urlencoded",
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert chunked.status_code == 413


def test_more_cookies_than_a_browser_keeps_are_not_read(admin: Person) -> None:
    session = admin.client.get_cookie("weighbridge_console", path="/console")
    assert session is not None
    fresh = admin.client.application.test_client(use_cookies=False)
    for others, status in ((100, 200), (201, 302)):
        header = "a=b; " * others + f"weighbridge_console={session.value}"
        assert fresh.get("/console/tasks", headers={"Cookie": header}).status_code == status


def test_after_20_wrong_tokens_the_next_one_is_refused_for_a_while(
    stranger: Person, signed_in: Callable[..., Person]
) -> None:
    earlier = signed_in("read")
    for _ in range(20):
        assert stranger.sign_in("wb_wrong").status_code == 401
    assert stranger.sign_in("wb_wrong").status_code == 429
    assert earlier.get("/tasks").status_code == 200


def test_a_token_that_is_bound_to_projects_opens_no_session(service: Service, stranger: Person) -> None:
    with service.engine.begin() as connection:
        bound = tokens.issue(connection, "team", actor="test", projects=["street"])
    answer = stranger.sign_in(bound)
    assert answer.status_code == 401
    assert "bound to projects" in answer.text
    assert stranger.get("/tasks").status_code == 302


def test_a_revoked_token_ends_its_sessions(service: Service, signed_in: Callable[..., Person]) -> None:
    person = signed_in("read")
    assert person.get("/tasks").status_code == 200
    with service.engine.begin() as connection:
        tokens.revoke(connection, "ana", actor="test")
    assert person.get("/tasks").status_code == 302


def test_signing_out_ends_the_session(admin: Person) -> None:
    assert admin.post("/sign-out").location == "/console/sign-in"
    assert admin.get("/").status_code == 302


@pytest.mark.parametrize(
    "path",
    [
        "/tokens",
        "/tokens/revoke",
        "/bulk-actions/new/deliveries.replay",
        "/workflows/creation/pause",
        "/workflows/any/start",
        "/bulk-actions/new/follow-ups.approve",
    ],
)
def test_a_form_without_its_csrf_token_does_nothing(admin: Person, service: Service, path: str) -> None:
    assert admin.client.post(f"/console{path}", data={"name": "mallory"}).status_code == 400
    with service.reader.begin() as connection:
        assert [row["action"] for row in list_audit_entries(connection, {}).rows] == []


def test_what_a_role_may_not_do_is_not_offered_and_refused(signed_in: Callable[..., Person]) -> None:
    reader = signed_in("read")
    assert "Pause creation" not in reader.get("/workflows").text
    assert "New token" not in reader.get("/tokens").text
    assert reader.post("/workflows/creation/pause").status_code == 403
    operator = signed_in("read", "operate")
    assert operator.post("/workflows/creation/pause").status_code == 302
    assert operator.post("/tokens", name="x", scope="read").status_code == 403


def test_a_decision_is_in_the_audit_log_with_the_name_of_the_token(
    service: Service, signed_in: Callable[..., Person]
) -> None:
    signed_in("read", "operate").post("/workflows/creation/pause")
    with service.reader.begin() as connection:
        newest = list_audit_entries(connection, {}, limit=1).rows[0]
    assert newest["actor"] == "ana"


def test_a_link_signs_in_once(app: Flask, service: Service) -> None:
    with service.engine.begin() as connection:
        link = tokens.issue_link(connection)
    first, second = Person(app), Person(app)
    assert first.get("/sign-in", once=link).location == "/console/"
    assert first.get("/tokens").status_code == 200
    assert second.get("/sign-in", once=link).status_code == 401
    assert second.get("/").status_code == 302
    assert (
        app.test_client().get("/api/v1/tasks", headers={"Authorization": f"Bearer {link}"}).status_code == 401
    )


def test_every_page_forbids_scripts_and_addresses_of_others(admin: Person) -> None:
    for path in ("/", "/tasks", "/nothing"):
        headers = admin.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL_FILES if not kind.startswith(("/", "name"))])
def test_the_page_of_a_workflow_shows_only_regular_files_of_its_folder(
    admin: Person, workflows_dir: Path, kind: str
) -> None:
    make_special_file(kind, workflows_dir)
    page = admin.get("/workflows/limits")
    assert page.status_code == 200
    assert "cannot be read: " in page.text
    assert "root:" not in page.text
