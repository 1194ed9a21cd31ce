"""Every screen in a real browser: readable by everyone, light and dark, narrow and wide, and without console errors."""

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from werkzeug.serving import make_server

from tests.app.api.conftest import TOKEN
from tests.sandbox.web.test_page_in_a_browser import FLAGS

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
TIMEOUT_MS = 30_000
SIZE = (640, 480)
SCREENS = (
    "",
    "tasks",
    "tasks/drawn",
    "tasks/drawn/compare",
    "tasks/text",
    "deliveries",
    "quarantine",
    "jobs",
    "follow-ups",
    "workflows",
    "datasets",
    "exports",
    "batches",
    "projects",
    "settings",
    "tokens",
    "subscribers",
    "audit",
    "nothing",
)
BOX = {"type": "box", "label": "car", "uuid": "a", "left": 100, "top": 50, "width": 200, "height": 100}
SHAPES = [
    BOX,
    {**BOX, "uuid": "b", "left": 300, "rotation": 0.5},
    {
        "type": "polygon",
        "label": "<b>road</b>",
        "uuid": "c",
        "vertices": [{"x": 10, "y": 300}, {"x": 600, "y": 310}, {"x": 500, "y": 460}],
    },
    {"type": "point", "label": "nose", "uuid": "d", "x": 40, "y": 60},
]


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *FLAGS]) as browser,
    ):
        yield browser


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Pages look the same on both databases; test_screens.py runs on both."""
    return sqlite_url


@pytest.fixture
def picture() -> Iterator[str]:
    """The address of an image on a server of its own."""
    content = io.BytesIO()
    Image.new("RGB", SIZE, "#9ec5e8").save(content, "PNG")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(content.getvalue())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/street.png"
        server.shutdown()


@pytest.fixture
def console(app: Flask, picture: str, deliver: Callable[..., object]) -> Iterator[str]:
    """The address of a console with some results."""
    service = app.extensions["weighbridge"]
    service.settings = replace(service.settings, attachment_hosts=(picture.split("/")[2],))
    params = {"attachment": picture, "attachment_type": "image"}
    task = {"type": "imageannotation", "task_id": "drawn", "params": params}
    deliver("annotation/accepted", **task, response={"annotations": SHAPES})
    later = {"annotations": [{**BOX, "label": "bus"}, *SHAPES[2:]]}
    deliver("annotation/accepted", **task, response=later, updated_at="2031-01-01T00:00:00Z")
    deliver(
        "annotation/accepted", **task, response={"annotations": SHAPES}, updated_at="2032-01-01T00:00:00Z"
    )
    deliver("namedentityrecognition/spans_and_relationships", task_id="text")
    deliver(b"not json")
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/console/"
    server.shutdown()


@pytest.fixture(params=[("light", 1280), ("dark", 360)], ids=["light and wide", "dark and narrow"])
def page(request: pytest.FixtureRequest, browser: Browser, console: str) -> Iterator[Page]:
    scheme, width = request.param
    with browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}) as window:
        window.set_default_timeout(TIMEOUT_MS)
        page = window.new_page()
        errors: list[str] = []
        outside: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda sent: outside.append(sent.url) if not sent.url.startswith((console, "data:")) else None,
        )
        sign_in(page, console)
        yield page
        assert [error for error in errors if "404" not in error] == []
        assert outside == []


def sign_in(page: Page, console: str) -> None:
    page.goto(console)
    page.get_by_label("API token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview", timeout=TIMEOUT_MS)


def test_every_screen_is_readable_by_everyone(page: Page, console: str) -> None:
    for screen in SCREENS:
        page.goto(f"{console}{screen}")
        page.evaluate(f"{AXE};0")
        violations = page.evaluate(
            "axe.run(document, {resultTypes: ['violations']})"
            ".then(found => found.violations.map(one => [one.id, one.nodes[0].html]))"
        )
        assert violations == [], screen
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(width) <= 0, screen


def test_shapes_lie_on_the_picture_where_the_result_says(page: Page, console: str) -> None:
    page.goto(f"{console}tasks/drawn")
    picture = page.locator(".stack img").bounding_box()
    shape = page.locator('svg [data-annotation="0"]').bounding_box()
    assert picture is not None
    assert shape is not None
    scale = picture["width"] / SIZE[0]
    drawn = [shape["x"] - picture["x"], shape["y"] - picture["y"], shape["width"], shape["height"]]
    assert [value / scale for value in drawn] == pytest.approx([100, 50, 200, 100], abs=0.5 + 2 / scale)


def test_a_label_is_hidden_and_shown_by_its_checkbox(page: Page, console: str) -> None:
    page.goto(f"{console}tasks/drawn")
    road = page.locator('svg [data-label="<b>road</b>"]')
    expect(road).to_be_visible()
    page.get_by_role("checkbox", name="<b>road</b>").uncheck()
    expect(road).to_be_hidden()
    page.get_by_role("checkbox", name="<b>road</b>").check()
    expect(road).to_be_visible()


def test_a_row_marks_its_shape_from_the_keyboard(page: Page, console: str) -> None:
    page.goto(f"{console}tasks/drawn")
    page.get_by_role("button", name="Mark annotation 2").focus()
    expect(page.locator('svg [data-annotation="2"]')).to_have_class("shape area alt0 marked")


def test_the_overview_shows_a_new_delivery_without_a_reload(
    page: Page, deliver: Callable[..., object]
) -> None:
    deliver("annotation/accepted", task_id="arrived-later")
    expect(page.get_by_text("arrived-later")).to_be_visible(timeout=TIMEOUT_MS)
