"""The console over a real database, and people who are signed in to it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser, sync_playwright
from werkzeug.test import TestResponse

from pipeline.access import tokens
from pipeline.service import Service
from tests.app.api.conftest import TOKEN, app, deliver, service, workflows_dir  # noqa: F401
from tests.app.console.browsing import Console, running
from tests.sandbox.web.test_page_in_a_browser import FLAGS

CSRF = re.compile(r'name="csrf_token" value="([^"]+)"')


class Person:
    """A browser without JavaScript: forms are sent with the CSRF token of a page."""

    def __init__(self, application: Flask) -> None:
        self.client: FlaskClient = application.test_client()

    def get(self, path: str, **query: Any) -> TestResponse:
        return self.client.get(f"/console{path}", query_string=query or None)

    def post(self, path: str, **fields: Any) -> TestResponse:
        page = self.client.get("/console/sign-in").text
        return self.client.post(f"/console{path}", data={"csrf_token": CSRF.findall(page)[0], **fields})

    def sign_in(self, token: str) -> TestResponse:
        return self.post("/sign-in", token=token)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    """A headless Chromium."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *FLAGS]) as browser,
    ):
        yield browser


@pytest.fixture(scope="module")
def console(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console with a task of every kind. Pages look the same on both databases; test_screens.py runs on both."""
    with running(migrated_sqlite_file, tmp_path_factory.mktemp("console")) as console:
        yield console


@pytest.fixture
def stranger(app: Flask) -> Person:  # noqa: F811
    """Somebody who is not signed in."""
    return Person(app)


@pytest.fixture
def signed_in(app: Flask, service: Service) -> Callable[..., Person]:  # noqa: F811
    """`signed_in("read")`: a person whose token has these scopes."""

    def signed_in(*scopes: str) -> Person:
        with service.engine.begin() as connection:
            token = tokens.issue(connection, "ana", scopes, actor="test")
        person = Person(app)
        assert person.sign_in(token).status_code == 302
        return person

    return signed_in


@pytest.fixture
def admin(stranger: Person) -> Person:
    """A person who is signed in with API_TOKEN."""
    stranger.sign_in(TOKEN)
    return stranger
