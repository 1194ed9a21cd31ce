"""Attacks on the sandbox by a local user, a web page in a developer's browser, and another machine of the network."""

import json
import os
import re
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from playwright.sync_api import sync_playwright

from sandbox.examples import example
from sandbox.pytest_plugin import LIVE_CALLBACK_KEY, ScaleSandbox, running_sandbox
from sandbox.settings import account_of
from tests.app.commands.folder import Folder, Terminal
from tests.fake_server import FakeServer, reply
from tests.sandbox.callback_receiver import CallbackReceiver
from tests.servers import Process, command_line, wait_until
from tests.service import BIN, ROOT

REAL_API_KEY = "live_REALKEYabcdefghijklmnop"
REAL_CALLBACK_KEY = "REAL_dashboard_callback_key_0123456789"
FORM_KEY = re.compile(r'name="form_key" value="([^"]+)"')


class Page:
    """A client of the sandbox's page that keeps its cookie, as a browser does."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False

    def post(self, path: str, form: dict[str, str], **headers: str) -> requests.Response:
        found = FORM_KEY.search(self.session.get(self.url, timeout=10).text)
        assert found is not None
        body = {"form_key": found[1], **form}
        return self.session.post(
            self.url + path, data=body, headers=headers, timeout=10, allow_redirects=False
        )


@pytest.fixture
def service() -> Iterator[CallbackReceiver]:
    """The service under development, which accepts the real callback key."""
    service = CallbackReceiver()
    yield service
    service.close()


@pytest.fixture
def attacker() -> Iterator[CallbackReceiver]:
    """A listener of somebody else on this machine."""
    attacker = CallbackReceiver()
    yield attacker
    attacker.close()


@pytest.fixture
def sandbox(tmp_path: Path, service: CallbackReceiver) -> Iterator[ScaleSandbox]:
    """A sandbox of a developer whose shell has a real API key and a real callback key."""
    port_line = re.compile(r"Sandbox at (\S+)")
    process = Process(
        [f"{BIN}/python", "-c", "from sandbox.cli import sandbox; sandbox()", "serve", "--port", "0",
         "--database", str(tmp_path / "var" / "sandbox.db"), "--callback-url", service.url],
        log=tmp_path / "sandbox.log",
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONUNBUFFERED": "1",
            "SCALE_API_KEY": REAL_API_KEY,
            "SANDBOX_API_KEYS": f"test_sandbox,live_sandbox,{REAL_API_KEY}",
            "SCALE_LIVE_CALLBACK_KEYS": REAL_CALLBACK_KEY,
        },
        cwd=ROOT,
    )  # fmt: skip
    process.start()
    try:
        url = wait_until(lambda: port_line.search(process.log.read_text()), 30, "the sandbox serves")[1]
        yield ScaleSandbox(url, None)  # type: ignore[arg-type]
    finally:
        process.kill()


def test_the_real_callback_key_goes_to_the_service_alone(
    sandbox: ScaleSandbox, service: CallbackReceiver, attacker: CallbackReceiver
) -> None:
    account = account_of("live_sandbox")
    Page(sandbox.url).post("/tasks", {"type": "chat", "account": account, "callback_url": attacker.url})
    port = urlsplit(service.url).port
    similar = [
        f"http://127.0.0.1:{port}/stolen",
        f"http://user@127.0.0.1:{port}/callback",
        f"http://localhost:{port}/callback",
        f"{service.url}?",
        f"{service.url}/",
        f"{service.url}#fragment",
        f"{service.url}/../callback",
    ]
    for url in (attacker.url, *similar):
        sandbox.create("chat", callback_url=url)
    sandbox.call("POST", "/v1/projects", {"name": "p", "type": "chat"})
    sandbox.call("POST", "/v1/batches", {"project": "p", "name": "b", "callback": attacker.url})
    sandbox.call("POST", "/sandbox/api/batches/b/complete")
    for callback in (*attacker.wait_for(3), *service.wait_for(len(similar) - 1)):
        assert callback.headers["scale-callback-auth"] == LIVE_CALLBACK_KEY
    sandbox.create("chat")
    arrived = sandbox.wait_for(
        lambda: [c for c in service.arrived if c.headers["scale-callback-auth"] == REAL_CALLBACK_KEY]
    )
    assert [callback.path for callback in arrived] == ["/callback"]


@pytest.mark.parametrize(
    "path", ["/", "/tasks/1", "/files/1", "/v1/tasks", "/v2/projects", "/sandbox/api/state"]
)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8001", "127.0.0.1.evil.example", "10.0.0.1"])
def test_a_rebound_host_name_is_refused(sandbox: ScaleSandbox, path: str, host: str) -> None:
    auth = ("live_sandbox", "")
    answer = requests.get(sandbox.url + path, headers={"Host": host}, auth=auth, timeout=10)
    assert answer.status_code == 400
    assert "form_key" not in answer.text


def test_a_callback_for_a_rebound_host_name_is_refused(sandbox: ScaleSandbox) -> None:
    headers = {"Host": "evil.example", "scale-callback-auth": LIVE_CALLBACK_KEY}
    answer = requests.post(f"{sandbox.url}/sandbox/receive", b"{}", headers=headers, timeout=10)
    assert answer.status_code == 400
    assert sandbox.received() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:8139"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_origin_is_refused(sandbox: ScaleSandbox, headers: dict[str, str]) -> None:
    form = {"type": "chat", "account": account_of("live_sandbox")}
    assert Page(sandbox.url).post("/tasks", form, **headers).status_code == 403
    assert sandbox.tasks() == []
    assert Page(sandbox.url).post("/tasks", form, Origin=sandbox.url).status_code == 303


def test_a_planted_cookie_makes_no_form_key(sandbox: ScaleSandbox) -> None:
    form = {"type": "chat", "account": account_of("live_sandbox")}
    for key in ("a", "", Page(sandbox.url).session.get(sandbox.url, timeout=10).text[:40]):
        answer = requests.post(
            f"{sandbox.url}/tasks", {**form, "form_key": key}, cookies={"sandbox_session": "a"}, timeout=10
        )
        assert answer.status_code == 403
    assert sandbox.tasks() == []


@pytest.mark.parametrize(
    ("credentials", "path"),
    [("", "/tasks"), ("live_sandbox:x@", "/v1/task/chat"), ("live_sandbox:x@", "/sandbox/api/reset")],
)
def test_a_page_on_another_port_cannot_submit_a_form(
    sandbox: ScaleSandbox, chromium: Path, credentials: str, path: str
) -> None:
    """The default keys are public, so a page can put them into the URL of a form."""
    kept = sandbox.create("chat")["task_id"]
    account = account_of("live_sandbox")
    action = sandbox.url.replace("://", f"://{credentials}") + path
    attack = f"""<!doctype html><form method="post" action="{action}">
        <input name="form_key" value="a"><input name="type" value="chat"><input name="account" value="{account}">
        </form><script>
        for (const name of ["sandbox_session", "sandbox_form"]) document.cookie = name + "=a; path=/tasks";
        document.forms[0].submit()</script>"""
    with (
        FakeServer(lambda request: reply(attack.encode(), Content_Type="text/html")) as site,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=["--disable-gpu"]) as browser,
    ):
        page = browser.new_page()
        with page.expect_response(lambda response: response.url.endswith(path)) as answer:
            page.goto(site.url, wait_until="commit")
        assert answer.value.status == 403
    assert [task["task_id"] for task in sandbox.tasks()] == [kept]


def test_no_api_key_is_stored_or_shown(sandbox: ScaleSandbox, tmp_path: Path) -> None:
    sandbox.create("chat", key=REAL_API_KEY)
    sandbox.call("POST", "/v1/projects", {"name": "p", "type": "chat"}, REAL_API_KEY)
    sandbox.call("GET", "/v1/teams", key=REAL_API_KEY)
    sandbox.add_fault("dropped", account=REAL_API_KEY)
    page = requests.get(sandbox.url, timeout=10).text
    assert "live key" in page
    for secret in (REAL_API_KEY, REAL_API_KEY[:12], REAL_CALLBACK_KEY):
        assert secret not in page
        assert not [file for file in files_in(tmp_path) if secret.encode() in file.read_bytes()]
    rules = sandbox.call("GET", "/sandbox/api/faults")["rules"]
    assert rules[0]["match"] == {"account": account_of(REAL_API_KEY)}


def test_the_database_is_for_its_user_alone(sandbox: ScaleSandbox, tmp_path: Path) -> None:
    sandbox.create("chat")
    folder = tmp_path / "var"
    assert mode(folder) == 0o700
    modes = {file.name: mode(file) for file in files_in(folder)}
    assert modes.keys() >= {"sandbox.db", "sandbox.db.lock"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("key", [None, "", "guess", REAL_CALLBACK_KEY, "é"])
def test_the_receiver_stores_nothing_without_the_sandboxs_key(sandbox: ScaleSandbox, key: str | None) -> None:
    headers = {} if key is None else {"scale-callback-auth": key.encode()}
    answer = requests.post(f"{sandbox.url}/sandbox/receive/x", b"{}", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert sandbox.received() == []


def test_the_receiver_is_bounded(sandbox: ScaleSandbox, tmp_path: Path) -> None:
    url, headers = f"{sandbox.url}/sandbox/receive", {"scale-callback-auth": LIVE_CALLBACK_KEY}
    large = requests.post(url, b"x" * (17 * 2**20), headers=headers, timeout=30)
    assert large.status_code == 413
    chunked = requests.post(url, iter([b"x" * 2**20] * 17), headers=headers, timeout=30)
    assert chunked.status_code == 413
    for number in range(10):
        body = json.dumps({"number": number, "filler": "x" * (8 * 2**20)}).encode()
        assert requests.post(url, body, headers=headers, timeout=30).status_code == 200
    with sqlite3.connect(tmp_path / "var" / "sandbox.db") as database:
        count, stored = database.execute(
            "SELECT count(*), sum(length(body)) FROM received_callbacks"
        ).fetchone()
    assert stored <= 64 * 2**20
    assert count == 7


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "clone").mkdir()
    return Folder(tmp_path / "clone")


@pytest.fixture
def up(folder: Folder) -> Iterator[Callable[..., Terminal]]:
    """`up(NAME=value)` starts `make run`'s command with these variables in the shell."""
    started: list[Terminal] = []

    def start(**env: str) -> Terminal:
        started.append(folder.start("flask", "up", **env))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


@pytest.mark.parametrize("source", ["shell", ".env"])
def test_make_run_keeps_real_keys_from_the_sandbox(
    folder: Folder, up: Callable[..., Terminal], source: str
) -> None:
    keys = {
        "SCALE_API_KEY": REAL_API_KEY,
        "SCALE_TEST_API_KEY": f"test_{REAL_API_KEY}",
        "SCALE_LIVE_CALLBACK_KEYS": REAL_CALLBACK_KEY,
        "API_TOKEN": "REAL_api_token_0123456789",
    }
    if source == ".env":
        (folder.path / ".env").write_text("".join(f"{name}={value}\n" for name, value in keys.items()))
    terminal = up(**(keys if source == "shell" else {}))
    terminal.says("Finished in")
    (sandbox,) = [
        process
        for process in psutil.Process(terminal.pid).children(recursive=True)
        if {"sandbox", "serve"} <= set(command_line(process))
    ]
    assert not [value for value in sandbox.environ().values() if "REAL" in value]
    assert "REAL" not in terminal.text
    assert "REAL" not in requests.get(f"http://127.0.0.1:{folder.ports[1]}/", timeout=10).text
    listed = folder.run("flask", "tasks", "list", "--json", **(keys if source == "shell" else {}))
    assert listed.returncode == 0, listed.stderr
    stored = [file for file in files_in(folder.path / "var") if REAL_API_KEY.encode() in file.read_bytes()]
    assert stored == []
    assert mode(folder.path / "var") == 0o700
    assert {mode(file) for file in files_in(folder.path / "var")} == {0o600}
    assert terminal.ends_after(signal.SIGINT, 30) == 0


def test_no_sandbox_runs_while_real_scale_is_used(folder: Folder, up: Callable[..., Terminal]) -> None:
    terminal = up(SCALE_API_URL="https://127.0.0.1:9/v1", SCALE_API_KEY=REAL_API_KEY)
    terminal.says("Booting worker")
    commands = [set(command_line(child)) for child in psutil.Process(terminal.pid).children(recursive=True)]
    assert not [command for command in commands if {"sandbox", "serve"} <= command]
    assert REAL_API_KEY not in (folder.path / "var" / "running.json").read_text()
    assert REAL_API_KEY not in terminal.text
    assert terminal.ends_after(signal.SIGINT, 30) == 0


def test_the_pytest_plugin_keeps_keys_of_the_shell_from_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_API_KEY", REAL_API_KEY)
    with running_sandbox(ROOT, None, "--memory") as sandbox:
        environment = psutil.Process(sandbox.process.pid).environ()
        assert sandbox.create("chat", **example("chat"))["task_id"]
    assert REAL_API_KEY not in environment.values()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
