"""What the README says is so: its commands run beside a real `make run`, its tables are those of the code."""

import ast
import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import click
import pytest

from app.commands import COMMANDS
from config import Settings, load_settings
from config.development import development_environment
from scale.task_types import GENERIC, TASK_TYPES, TaskType
from tests.app.commands.folder import Folder, Terminal
from tests.service import BIN, ROOT
from workflows.definition.loader import parse
from workflows.definition.model import Workflow

README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
RUNS_US = "make test\n"
STAYS = "make run\n"


def blocks(language: str) -> list[str]:
    return [textwrap.dedent(text) for _, name, text in FENCE.findall(README) if name == language]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A folder like a clone in which everything is installed, with `make run` running."""
    path = tmp_path_factory.mktemp("readme")
    folder = Folder(path)
    (path / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (path / ".venv" / part).symlink_to(BIN.parent / part)
    (path / ".venv/installed").touch()
    folder.env["PATH"] = os.environ["PATH"]  # nothing of the virtualenv: the commands say where they are
    run: Terminal = folder.start("bash", "-c", STAYS)
    try:
        run.says("The whole way took")
        yield folder
        run.ends_after(signal.SIGINT, 5)
        assert "Error" not in run.tail(3)
    finally:
        run.close()


def test_the_two_commands_are_there() -> None:
    assert [block for block in blocks("sh") if block.startswith("make")] == [STAYS, RUNS_US]
    subprocess.run(["make", "-n", "test"], cwd=ROOT, check=True, capture_output=True)


def test_every_other_command_runs_beside_make_run(clone: Folder) -> None:
    """In their order, with the settings of the running service where the reader has put Scale's."""
    given = development_environment({**clone.env, "SECRET_KEY": (clone.path / "var/secret_key").read_text()})
    names = ("API_TOKEN", "SCALE_API_URL", "SCALE_TEST_API_KEY", "PUBLIC_URL", "PORT")
    for block in blocks("sh"):
        if block in (STAYS, RUNS_US):
            continue
        done = clone.run("bash", "-euo", "pipefail", "-c", block, **{name: given[name] for name in names})
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        if "/api/v1/" in block:
            assert '"data":' in done.stdout
        if "-u " in block:
            assert '"task_id"' in done.stdout
    followed = clone.run(".venv/bin/flask", "follow-ups", "list", "--json").stdout
    assert followed.count('"completed"') == 3  # two demonstrations, and the first task with the test key


def test_every_command_that_is_mentioned_exists() -> None:
    mentioned = set(re.findall(r"flask ((?:[a-z][a-z-]+ ?)+)", README))
    assert len(mentioned) > 8
    for words in mentioned:
        known: Any = {command.name: command for command in COMMANDS}
        for word in words.split():
            assert word in known, f"flask {words}"
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
    rows = re.findall(r"^\| ([A-Z_, ]+) \|(.*?)\| .+ \|$", README, re.MULTILINE)
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
    table = README.partition("<!-- task types -->\n")[2].partition("<!-- end of task types -->")[0]
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


def test_the_workflow_of_the_example_is_in_order() -> None:
    (example,) = blocks("yaml")
    assert isinstance(parse(example, "README.md"), Workflow)


def test_the_task_type_of_the_example_understands_a_response() -> None:
    (example,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(ast.parse(example), "README.md", "exec"), names)
    river: TaskType = names["RIVER"]
    drawn = {"annotations": [{"label": "river", "vertices": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}]}
    assert [row.type for row in river.parse(drawn, {}).annotations] == ["line"]


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"`([a-z_]+/(?:[a-z_]+(?:/|\.\w+))*)`", README))
    named |= set(re.findall(r"<b>([\w/.]+)</b>", README)) | set(re.findall(r"\]\(([\w/.-]+)\)", README))
    named |= {"Procfile", "compose.yaml", "Dockerfile", "app.json", ".env.example"}
    assert len(named) > 15
    for path in named - {"var/"}:
        assert (ROOT / path).exists(), path
