"""What a process imports when it starts: only what it needs. Every module costs processor time in every process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = {f"app.commands.{path.stem}" for path in (ROOT / "app/commands").glob("*.py")}
SHARED = {"app.commands.__init__", "app.commands.group", "app.commands.main", "app.commands.output"}
COMMANDS_ALONE = COMMANDS - SHARED
PRINT_MODULES = "import atexit, sys; atexit.register(lambda: print('\\nmodules:', *sys.modules));"


def modules_after(code: str, folder: Path) -> set[str]:
    """Return the names of the modules that a new process has imported when it ends."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": f"sqlite:///{folder}/empty.db",
        "SECRET_KEY": "secret",
    }
    done = subprocess.run(
        [sys.executable, "-c", PRINT_MODULES + code],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    _, found, names = done.stdout.rpartition("\nmodules:")
    assert found, done.stderr
    return set(names.split())


def command(*args: str) -> str:
    return f"from app.commands.main import make_main; make_main()({args!r}, standalone_mode=False)"


@pytest.mark.parametrize("code", ["import wsgi", "import workers.celery_app"], ids=["web", "worker"])
def test_a_server_imports_no_command_and_nothing_of_migrations(code: str, tmp_path: Path) -> None:
    assert not modules_after(code, tmp_path) & {*COMMANDS_ALONE, "alembic", "psycopg"}


def test_a_command_imports_neither_other_commands_nor_the_web_application(tmp_path: Path) -> None:
    found = modules_after(command("tasks", "list", "--help"), tmp_path)
    assert found & COMMANDS_ALONE == {"app.commands.tasks", "app.commands.stats", "app.commands.timestamps"}
    assert not found & {"app.application", "app.api.resources", "app.console"}


def test_a_command_imports_what_it_needs_alone(tmp_path: Path) -> None:
    assert "alembic" in modules_after(command("db", "upgrade"), tmp_path)
    found = modules_after(command("tasks", "list"), tmp_path)  # of the database that is now there
    assert "sqlalchemy" in found
    assert not found & {"alembic", "celery", "numpy", "psycopg", "redis"}


def test_the_sandbox_imports_nothing_of_the_service(tmp_path: Path) -> None:
    serve = command("sandbox", "serve", "--port", "0", "--memory", "--until-stdin-closes")
    found = modules_after(serve, tmp_path)
    assert "sandbox.web.server" in found
    assert not {name for name in found if name.startswith(("pipeline", "models", "workflows"))}
    assert not found & {"numpy", "psycopg", "structlog"}
