"""Run the commands of README next to a real `make run`, and compare the tables of docs/ with the code."""

import ast
import os
import re
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import click
import pytest

from app.commands import make_commands
from config import Settings, load_settings
from config.development import development_environment
from scale.task_types import GENERIC, TASK_TYPES, TaskType
from tests.app.commands.folder import Folder, Terminal
from tests.servers import wait_until
from tests.service import BIN, ROOT
from workflows.definition.loader import parse
from workflows.definition.model import Workflow

README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()
TYPES = (ROOT / "docs/task-types.md").read_text()
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
RUNS_US = "make test\n"
STAYS = "make run\n"


def blocks(language: str, page: str = README) -> list[str]:
    return [textwrap.dedent(text) for _, name, text in FENCE.findall(page) if name == language]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A folder like a clone in which everything is installed, with `make run` running."""
    path = tmp_path_factory.mktemp("readme")
    folder = Folder(path)
    (path / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (path / ".venv" / part).symlink_to(BIN.parent / part)
    (path / ".venv/installed").touch()
    (path / "config").unlink()
    shutil.copytree(ROOT / "config", path / "config")  # the reader adds a workflow to it
    folder.env["PATH"] = os.environ["PATH"]  # nothing of the virtualenv: the commands say where they are
    run: Terminal = folder.start("bash", "-c", STAYS)
    try:
        run.says("Finished in")
        yield folder
        run.ends_after(signal.SIGINT, 30)
        assert "Error" not in run.tail(3)
    finally:
        run.close()


def test_the_two_commands_are_there() -> None:
    assert [block for block in blocks("sh") if block.startswith("make")] == [STAYS, RUNS_US]
    subprocess.run(["make", "-n", "test"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.timeout(900)
def test_every_other_command_runs_while_make_run_runs(clone: Folder) -> None:
    """In their order, with the settings of the running service where the reader has put Scale's."""
    given = development_environment({**clone.env, "SECRET_KEY": (clone.path / "var/secret_key").read_text()})
    names = ("API_TOKEN", "SCALE_API_URL", "SCALE_TEST_API_KEY", "PUBLIC_URL", "PORT")
    (workflow,) = blocks("yaml")
    (file,) = re.findall(r"Save it as `(config/workflows/[\w-]+\.yaml)`", README)
    (clone.path / file).write_text(workflow)
    for block in blocks("sh"):
        if block in (STAYS, RUNS_US):
            continue
        values = {name: given[name] for name in names}
        done = clone.run("bash", "-euo", "pipefail", "-c", block, seconds=300, **values)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        if "/api/v1/" in block:
            assert '"data":' in done.stdout
        if "-u " in block:
            assert '"task_id"' in done.stdout

    def completed(workflow: str) -> int:
        command = (".venv/bin/weighbridge", "follow-ups", "list", "--workflow", workflow, "--json")
        return clone.run(*command).stdout.count('"completed"')

    wait_until(lambda: completed("polygons-to-boxes") >= 2, 120, "both demonstrations")
    wait_until(lambda: completed("outline-cars") == 1, 120, "the reader's own workflow")


def test_every_command_that_is_mentioned_exists() -> None:
    pages = [
        README,
        *(page.read_text() for page in (ROOT / "docs").glob("*.md")),
        *(page.read_text() for page in (ROOT / "docs/runbooks").glob("*.md")),
    ]
    mentioned = {
        words
        for page in pages
        for words in re.findall(r"(?:`|bin/|\$ )weighbridge ((?:[a-z][a-z-]+ ?)+)", page)
    }
    assert len(mentioned) > 20
    for words in mentioned:
        known: Any = make_commands().commands
        for word in words.split():
            assert word in known, f"weighbridge {words}"
            command = known[word]
            known = command.commands if isinstance(command, click.Group) else {}
            if not known:
                break


def test_every_target_that_is_mentioned_exists() -> None:
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z]+)", README)) <= set(targets)


def test_the_settings_of_the_example_can_be_read() -> None:
    (example,) = blocks("ini")
    settings = load_settings(dict(line.split("=", 1) for line in example.splitlines()))
    assert settings.scale_test_api_key
    assert settings.callback_url == "https://weighbridge.example.com/callbacks/scale"


def test_the_settings_table_names_every_setting_and_its_default() -> None:
    rows = re.findall(r"^\| ([A-Z_, ]+) \|(.*?)\| .+ \|$", SETTINGS, re.MULTILINE)
    defaults = {name: field.default for field in fields(Settings) for name in [field.name.upper()]}
    names = {name for row, _ in rows for name in row.split(", ")}
    assert names == set(defaults) - {"SECRET_KEY_IS_SET", "DYNO"}
    for row, written in rows:
        for name, value in zip(row.split(", "), written.strip().split(", "), strict=False):
            if isinstance(defaults[name], int | float) and not isinstance(defaults[name], bool):
                assert float(value) == defaults[name], name
            elif isinstance(defaults[name], str) and defaults[name]:
                assert value == defaults[name], name


def test_the_table_of_task_types_is_that_of_the_code() -> None:
    table = TYPES.partition("<!-- task types -->\n")[2].partition("<!-- end of task types -->")[0]
    assert table == task_types_table(), f"make it again:\n{task_types_table()}"


def task_types_table() -> str:
    rows = ["| task type | result | rows | takes layers | what it is |", "|---|---|---|---|---|"]
    for known in (*TASK_TYPES, GENERIC):
        name = f"`{known.name}`" if known is not GENERIC else "any other"
        layers = "yes" if known.request and known.request.takes_layers else ""
        rows.append(
            f"| {name} | {known.result_form} | {', '.join(known.yields)} | {layers} | {known.description} |"
        )
    return "\n".join(rows) + "\n"


def test_the_workflow_of_the_example_is_valid() -> None:
    (example,) = blocks("yaml")
    assert isinstance(parse(example, "README.md"), Workflow)


def test_the_task_type_of_the_example_understands_a_response() -> None:
    (example,) = blocks("python", TYPES)
    names: dict[str, Any] = {}
    exec(compile(ast.parse(example), "README.md", "exec"), names)
    river: TaskType = names["RIVER"]
    drawn = {"annotations": [{"label": "river", "vertices": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}]}
    assert [row.type for row in river.parse(drawn, {}).annotations] == ["line"]


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"`([a-z_]+/(?:[a-z_]+(?:/|\.\w+))*)`", README))
    named |= set(re.findall(r"<b>([\w/.]+)</b>", README)) | set(re.findall(r"\]\(([\w/.-]+)\)", README))
    assert len(named) > 15
    for path in named - {"var/", "config/workflows/outline-cars.yaml"}:
        assert (ROOT / path).exists(), path
