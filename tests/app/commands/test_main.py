"""The command `weighbridge` itself: sections, version, former names, suggestions, and --json everywhere."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from app.commands import SECTIONS, make_commands
from app.commands.main import make_main
from config import Settings, load_settings
from config.version import VERSION

WITHOUT_JSON = {
    "up",
    "demo",
    "deliveries body",
    "workflows graph",
    "workflows reference",
    "workflows schema",
}
"""Commands that run processes, write bytes or print a document."""
JSON_ALWAYS = ("scale", "sandbox")
"""Groups whose commands print the answer of an API, which is JSON."""


def run(*args: str) -> Result:
    return CliRunner().invoke(make_main(), args, prog_name="weighbridge")


def leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from leaves(child, f"{path} {name}")
    else:
        yield path, command


ALL = [leaf for name, command in make_commands().commands.items() for leaf in leaves(command, name)]


def test_help_lists_every_command_in_its_section() -> None:
    text = run("--help").output
    positions = [text.index(f"\n{title}:") for title in SECTIONS]
    assert positions == sorted(positions)
    for names in SECTIONS.values():
        for name in names:
            assert f"\n  {name} " in text


def test_version_is_that_of_the_code() -> None:
    assert run("--version").output.startswith(f"weighbridge {VERSION} ")


def test_a_mistyped_command_is_answered_with_a_suggestion() -> None:
    for words, suggestion in (
        (("jbos",), "jobs"),
        (("jobs", "lst"), "list"),
        (("follow-up", "list"), "follow-ups"),
    ):
        done = run(*words)
        assert done.exit_code == 2
        assert f"Did you mean '{suggestion}'?" in done.output or suggestion in done.output


def test_former_names_work_and_are_not_listed() -> None:
    assert run("creating", "stop", "--help").exit_code == 0
    assert "creating" not in run("--help").output
    assert "stop" not in run("creation", "--help").output


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_command_has_help_and_json(path: str, command: click.Command) -> None:
    assert command.help
    assert command.name == path.split()[-1]
    first = command.help.split(maxsplit=1)[0]
    assert first[0].isupper()
    assert not first.endswith("s") or first in ("Dismiss", "Pass"), f"{path}: {first} is no imperative"
    if path in WITHOUT_JSON or path.startswith(JSON_ALWAYS):
        return
    assert "--json" in {option for parameter in command.params for option in parameter.opts}, path


def test_help_and_version_need_no_valid_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    monkeypatch.setenv("PORT", "many")  # of the web process: no reason to stop a command
    assert run("--help").exit_code == 0
    assert run("--version").exit_code == 0
    done = run("jobs", "list")
    assert done.exit_code == 2
    assert "LOG_LEVEL: " in done.output
    assert "PORT: " in done.output  # once something stops a command, every invalid setting is named
    monkeypatch.delenv("LOG_LEVEL")
    assert load_settings(process="command").port == Settings.port


def test_settings_of_flask_and_of_other_projects_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    for name, value in (
        ("FLASK_APP", "another.project:app"),
        ("FLASK_DEBUG", "1"),
        ("FLASK_ENV_FILE", "/nowhere"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    done = run("jobs", "list", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == []


def test_logs_do_not_mix_with_the_output(
    monkeypatch: pytest.MonkeyPatch, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.yaml").write_text("nonsense: 1")
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("WORKFLOWS_DIR", str(tmp_path))
    done = run("tasks", "list", "--type", "unknown", "--json")
    assert json.loads(done.stdout) == []
    assert "workflow file not loaded" in done.stderr
