"""Commands in this process over a real database, and folders for those that run as real processes."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from app.application import create_app
from config import load_settings
from pipeline.receive.receive import Receipt, receive
from pipeline.service import Service
from tests.app.commands.folder import Folder, Terminal

PAYLOADS = Path(__file__).parent.parent.parent / "payloads"

Run = Callable[..., Result]
Deliver = Callable[..., Receipt]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "clone").mkdir()
    return Folder(tmp_path / "clone")


@pytest.fixture
def start(folder: Folder, request: pytest.FixtureRequest) -> Iterator[Callable[..., Terminal]]:
    """Start a command in the folder; whatever still runs at the end is killed, and what it said is shown."""
    started: list[Terminal] = []

    def one(*command: str, **env: str) -> Terminal:
        started.append(folder.start(*command, **env))
        return started[-1]

    yield one
    for terminal in started:
        terminal.close()
        request.node.add_report_section("teardown", "terminal", terminal.tail(200))


@pytest.fixture
def workflows_dir(tmp_path: Path) -> Path:
    """A folder with the workflow that the project comes with."""
    folder = tmp_path / "workflows"
    folder.mkdir()
    own = Path("tests/workflows/files/polygons-to-boxes.yaml")
    (folder / own.name).write_text(own.read_text())
    return folder


@pytest.fixture
def make_app(database_url: str, tmp_path: Path, workflows_dir: Path) -> Iterator[Callable[..., Flask]]:
    """`make_app(PUBLIC_URL=…)`: an application over the database, with these settings in addition to the required ones."""
    made: list[Flask] = []
    out = logging.getLogger().handlers[:]

    def make(**env: str) -> Flask:
        least = {
            "SECRET_KEY": "secret",
            "DATABASE_URL": database_url,
            "ARTIFACT_STORE": str(tmp_path / "artifacts"),
            "WORKFLOWS_DIR": str(workflows_dir),
        }
        made.append(create_app(load_settings({**least, **env})))
        return made[-1]

    yield make
    for app in made:
        app.extensions["weighbridge"].engine.dispose()
    # A command has sent the logs to a stream that ended with it.
    logging.getLogger().handlers[:] = out


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()


@pytest.fixture
def service(app: Flask) -> Service:
    found: Service = app.extensions["weighbridge"]
    return found


@pytest.fixture
def weighbridge(app: Flask) -> Run:
    """`weighbridge("jobs", "list")`: the command, ended; `.output`, `.stdout`, `.exit_code`. An unforeseen error is raised."""
    return commands_of(app)


def commands_of(app: Flask) -> Run:
    def run(*args: str, **options: Any) -> Result:
        result = app.test_cli_runner().invoke(args=args, **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def deliver(service: Service) -> Deliver:
    """`deliver("polygonannotation/polygons")` receives a recorded body; keywords change its task object."""

    def one(case: str | bytes, **changes: Any) -> Receipt:
        if isinstance(case, str):
            body = json.loads((PAYLOADS / f"{case}.json").read_text())
            body["task"].update(changes)
            body["task_id"] = body["task"]["task_id"]
            case = json.dumps(body).encode()
        return receive(
            service,
            case,
            "live",
        )

    return one
