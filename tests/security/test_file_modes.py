"""Other users of the machine: whatever the umask is, databases, results, exports, backups and keys are for one user alone."""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.examples import example
from sandbox.pytest_plugin import ScaleSandbox
from tests.app.commands.folder import Folder
from tests.servers import Process, wait_until
from tests.service import BIN, ROOT, Service

WORKER = ["celery", "-A", "workers.celery_app", "worker", "-P", "threads", "-c", "2"]


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    """Let every process start with the umask of a usual shell."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> dict[str, str]:
    """Return the files and folders below `folder` that another user may use: name → mode."""
    modes = {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}
    return {name: oct(mode) for name, mode in modes.items() if mode & 0o077}


@pytest.mark.parametrize("command", ["weighbridge db upgrade", "flask db upgrade", "alembic upgrade head"])
def test_a_command_that_makes_a_database_or_a_key_makes_it_private(tmp_path: Path, command: str) -> None:
    (tmp_path / "clone").mkdir()
    folder = Folder(tmp_path / "clone")
    data = tmp_path / "data"
    database_url = f"sqlite:///{data}/weighbridge.db"
    done = folder.run(*command.split(), DATABASE_URL=database_url, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert (data / "weighbridge.db").exists()
    assert open_to_others(data) == {}
    assert (folder.path / "var/secret_key").exists()
    assert open_to_others(folder.path / "var") == {}


@pytest.mark.slow
def test_whatever_the_processes_write_is_private(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    data, temporary = tmp_path / "data", tmp_path / "temporary"
    temporary.mkdir()
    url = f"sqlite:///{data}/weighbridge.db"
    env = {"ARTIFACT_STORE": str(data / "artifacts"), "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    one = start_service(url, env=env, processes=("sandbox",))

    def run(*command: str) -> None:
        done = subprocess.run(
            [f"{BIN}/weighbridge", *command],
            env=one.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("db", "upgrade")
    for name, command in (("web", ["gunicorn", "wsgi:app"]), ("worker", WORKER)):
        one.processes[name] = Process(command, log=one.folder / f"{name}.log", env=one.env, cwd=ROOT)
    one.start("web", "worker")
    scale = ScaleSandbox(one.sandbox_url.removesuffix("/v1"), None)  # type: ignore[arg-type]
    request = example("segmentannotation")
    scale.create("segmentannotation", callback_url=f"{one.web_url}/callbacks/scale", **request)
    wait_until(
        lambda: "stored" in [row["state"] for row in one.api("/artifacts")["data"]], 60, "a file is stored"
    )
    for out in ("folder", "export.zip"):
        run("export", "csv", str(data / out))
    run("backup", str(data / "backup"))
    made = {path.name for path in data.iterdir()}
    assert made >= {
        "weighbridge.db",
        "weighbridge.db-wal",
        "weighbridge.db-shm",
        "artifacts",
        "folder",
        "export.zip",
        "backup",
    }
    assert open_to_others(data) == {}
    assert open_to_others(temporary) == {}
