"""Which variables have an effect: README's settings, from this folder's `.env` and from the environment."""

import os
import subprocess
from pathlib import Path

import pytest

from config import SettingsError, load_settings
from config.environment import EnvFileError, read_env_file
from tests.service import BIN


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder below another project's, which has a `.env`."""
    (tmp_path / ".env").write_text("DATABASE_URL=sqlite:///foreign.db\nSCALE_API_KEY=live_foreign\n")
    own = tmp_path / "weighbridge"
    own.mkdir()
    monkeypatch.chdir(own)
    for name in ("DATABASE_URL", "SCALE_API_KEY", "API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return own


def test_the_env_file_of_a_parent_folder_has_no_effect(folder: Path) -> None:
    settings = load_settings()
    assert settings.database_url == "sqlite:///var/weighbridge.db"
    assert settings.scale_api_key is None


def test_the_environment_has_precedence_over_the_env_file_of_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env").write_text("API_TOKEN=of-the-file\nSCALE_API_KEY='live_quoted'\nUNIQUE_ID_PREFIX=a.\n")
    monkeypatch.setenv("UNIQUE_ID_PREFIX", "b.")
    settings = load_settings()
    assert (settings.api_token, settings.scale_api_key) == ("of-the-file", "live_quoted")
    assert settings.unique_id_prefix == "b."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"API_TOKEN=\xff\xfe", "UTF-8"),
        ("API_TOKEN=ä".encode("latin-1"), "UTF-8"),
        (b"\xff\xfeA\x00", "UTF-8"),
    ],
)
def test_an_env_file_that_is_no_text_is_a_message_that_names_it(
    folder: Path, content: bytes, message: str
) -> None:
    (folder / ".env").write_bytes(content)
    with pytest.raises(EnvFileError, match=message):
        read_env_file()
    with pytest.raises(SettingsError, match=r"^\.env "):
        load_settings()


def test_an_env_file_that_is_a_folder_is_a_message_that_names_it(folder: Path) -> None:
    (folder / ".env").mkdir()
    with pytest.raises(SettingsError, match=r"^\.env "):
        load_settings()


@pytest.mark.parametrize(
    ("process", "foreign"),
    [
        ("worker", {"PORT": "many", "WEB_CONCURRENCY": "auto", "SANDBOX_PORT": "x"}),
        ("web", {"WORKER_CONCURRENCY": "auto", "SANDBOX_SPEED": "fast"}),
        ("command", {"PORT": "many", "WEB_THREADS": "0", "WORKER_CONCURRENCY": "-1", "SANDBOX_PORT": "x"}),
    ],
)
def test_a_setting_that_a_process_does_not_use_cannot_stop_it(process: str, foreign: dict[str, str]) -> None:
    settings = load_settings({**foreign, "SECRET_KEY": "s"}, process=process)
    assert settings == load_settings({"SECRET_KEY": "s"})
    with pytest.raises(SettingsError):
        load_settings({**foreign, "SECRET_KEY": "s"})


@pytest.mark.parametrize(("process", "name"), [("web", "PORT"), ("worker", "WORKER_CONCURRENCY")])
def test_a_setting_that_a_process_uses_stops_it(process: str, name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings({name: "many", "SECRET_KEY": "s"}, process=process)


def test_variables_of_flask_and_celery_have_no_effect_on_a_command(folder: Path) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "FLASK_APP": "another.project:app",
        "FLASK_ENV": "production",
        "FLASK_DEBUG": "1",
        "FLASK_RUN_PORT": "1",
        "CELERY_BROKER_URL": "amqp://another",
        "DJANGO_SETTINGS_MODULE": "another.settings",
    }
    done = subprocess.run(
        [str(BIN / "weighbridge"), "task-types", "--json"],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


PROJECT = Path(__file__).parents[2]
FOREIGN = "DATABASE_URL=postgresql://foreign:CANARY@127.0.0.1:9/foreign\nAPI_TOKEN=foreign-token\nPORT=many\n"


@pytest.mark.parametrize("name", [".env", ".flaskenv"])
@pytest.mark.parametrize("own", [None, "UNIQUE_ID_PREFIX=own.\n"], ids=["no file", "own file"])
def test_flask_takes_no_settings_from_the_file_of_a_parent_folder(
    tmp_path: Path, name: str, own: str | None
) -> None:
    """The `flask` command loads the nearest file by itself, before the application exists."""
    (tmp_path / name).write_text(FOREIGN)
    folder = tmp_path / "weighbridge"
    folder.mkdir()
    if own is not None:
        (folder / ".env").write_text(own)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(PROJECT),
        "FLASK_APP": str(PROJECT / "wsgi.py"),
        "METRICS_TOKEN": "of-the-shell",
        "WORKFLOWS_DIR": str(PROJECT / "config/workflows"),
    }
    code = (
        "from flask import current_app as a; s = a.extensions['weighbridge'].settings;"
        "print([s.database_url, s.api_token, s.metrics_token, s.unique_id_prefix, s.port])"
    )
    done = subprocess.run(
        [str(BIN / "flask"), "shell"],
        input=code,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    prefix = "" if own is None else "own."
    assert f"['sqlite:///var/weighbridge.db', None, 'of-the-shell', '{prefix}', 8000]" in done.stdout, done
    assert "CANARY" not in done.stdout + done.stderr
