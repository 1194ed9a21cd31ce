"""A console with a task of every kind, and browsers that are signed in to it."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page
from werkzeug.serving import make_server

from app.application import create_app
from config import load_settings
from pipeline.access import tokens
from pipeline.receive.receive import Receipt, receive
from pipeline.service import Service
from tests.app.api.conftest import TOKEN, changed
from tests.app.console import gallery

TIMEOUT_MS = 30_000
ROLES = {"reader": ("read",), "operator": ("read", "operate"), "admin": ("read", "operate", "admin")}


@dataclass
class Console:
    """A running console. `address` ends with /console/."""

    address: str
    service: Service
    deliver: Callable[..., Receipt]
    tokens: dict[str, str]
    files: str
    """Address of the server that has the attachments."""


@dataclass
class Window:
    """A page of a browser, with what must not happen in it."""

    page: Page
    console: Console
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def open(self, path: str = "") -> Page:
        self.page.goto(f"{self.console.address}{path}")
        return self.page

    def sign_in(self, role: str) -> None:
        self.open("sign-in")
        self.page.get_by_label("API token").fill(self.console.tokens[role])
        self.page.get_by_role("button", name="Sign in").click()


@contextmanager
def running(database: Path, folder: Path) -> Iterator[Console]:
    """Run a console on a migrated database file, with the gallery stored."""
    path = folder / "weighbridge.db"
    shutil.copyfile(database, path)
    workflows = folder / "workflows"
    workflows.mkdir()
    for name, text in gallery.WORKFLOWS.items():
        (workflows / name).write_text(text)
    settings = {
        "API_TOKEN": TOKEN,
        "SECRET_KEY": "secret",
        "DATABASE_URL": f"sqlite:///{path}",
        "ARTIFACT_STORE": str(folder / "artifacts"),
        "WORKFLOWS_DIR": str(workflows),
    }
    app = create_app(load_settings(settings))
    service: Service = app.extensions["weighbridge"]

    def deliver(case: str | bytes, environment: str = "live", **changes: Any) -> Receipt:
        body = case if isinstance(case, bytes) else json.dumps(changed(case, changes)).encode()
        return receive(service, body, environment, headers={"User-Agent": "recorded"})

    content = gallery.files()
    with gallery.serving(content) as files:
        content["/rig.json"] = gallery.rig(files)
        gallery.allow(service, files)
        gallery.fill(service, deliver, files)
        with service.engine.begin() as connection:
            known = {
                name: tokens.issue(connection, name, scopes, actor="test") for name, scopes in ROLES.items()
            }
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Console(f"http://127.0.0.1:{server.server_port}/console/", service, deliver, known, files)
        server.shutdown()
        service.engine.dispose()


@contextmanager
def window(
    browser: Browser,
    console: Console,
    role: str = "admin",
    scheme: str = "light",
    width: int = 1280,
    **options: Any,
) -> Iterator[Window]:
    """Open a window that is signed in. Afterwards its console must be clean and nothing loaded from elsewhere."""
    size = {"width": width, "height": 900}
    with browser.new_context(color_scheme=scheme, viewport=size, **options) as context:  # type: ignore[arg-type]
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        opened = Window(page, console)
        page.on(
            "console",
            lambda message: (
                opened.errors.append(f"{page.url}: {message.text}") if message.type == "error" else None
            ),
        )
        page.on("pageerror", lambda error: opened.errors.append(str(error)))
        inside = (console.address, "data:", "blob:")
        page.on(
            "request",
            lambda sent: opened.outside.append(sent.url) if not sent.url.startswith(inside) else None,
        )
        opened.sign_in(role)
        yield opened
        errors = [
            error
            for error in opened.errors
            if not error.endswith(
                ("(NOT FOUND)", "(FORBIDDEN)", "(UNPROCESSABLE ENTITY)", "(UNPROCESSABLE CONTENT)")
            )
        ]
        assert errors == [], errors
        assert opened.outside == [], opened.outside
