"""The image runs as every process: not as root, on a read-only file system, with a whole chain of tasks, until SIGTERM.

`make image` builds it and runs this file. It needs root, podman and runc, so the suite does not collect it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.servers import free_port, wait_until
from tests.service import ROOT

IMAGE = "weighbridge:test"
STORE = ROOT / "var/images"
USER = 10001
PODMAN = ("podman", "--runtime", "/usr/sbin/runc")
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())

pytestmark = pytest.mark.timeout(300)


def podman(*words: str, timeout: float = 120) -> str:
    """Run podman and return its output. Fails the test with its errors."""
    env = os.environ | {"CONTAINERS_STORAGE_CONF": str(STORE / "storage.conf")}
    done = subprocess.run(
        [*PODMAN, *words], env=env, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"podman {' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Deployment:
    """The processes of one installation, each in a container with the network of this machine."""

    def __init__(self, folder: Path) -> None:
        self.web_port, self.sandbox_port = free_port(), free_port()
        self.name = f"weighbridge-test-{os.getpid()}"
        settings = {
            "PORT": self.web_port,
            "SANDBOX_PORT": self.sandbox_port,
            "PUBLIC_URL": self.web_url,
            "SCALE_API_URL": f"http://127.0.0.1:{self.sandbox_port}/v1",
            "SCALE_API_KEY": "live_sandbox",
            "SCALE_TEST_API_KEY": "test_sandbox",
            "SCALE_LIVE_CALLBACK_KEYS": "live_callback",
            "SCALE_TEST_CALLBACK_KEYS": "test_callback",
            "API_TOKEN": "a-token-of-the-test",
            "SECRET_KEY": "a-secret-of-the-test",
            "DEMONSTRATION": "true",
            "REMAP_SIGTERM": "SIGQUIT",
        }
        volume = folder / "var"
        volume.mkdir(mode=0o700)
        os.chown(volume, USER, USER)
        self.options = [
            "--network=host",
            "--ulimit=nofile=20000:20000",
            "--ulimit=nproc=1000:1000",
            "--read-only",
            "--read-only-tmpfs=false",
            f"--volume={volume}:/app/var",
            *(f"--env={name}={value}" for name, value in settings.items()),
        ]
        self.started: list[str] = []

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    def run(self, *words: str) -> str:
        return podman("run", "--rm", *self.options, IMAGE, *words)

    def start(self, process: str, *words: str) -> None:
        podman("run", "-d", "--name", f"{self.name}-{process}", *self.options, IMAGE, *words)
        self.started.append(process)

    def execute(self, process: str, *words: str) -> str:
        return podman("exec", f"{self.name}-{process}", *words)

    def stop(self, process: str) -> int:
        """Send SIGTERM and return the exit status."""
        podman("stop", "-t", "30", f"{self.name}-{process}")
        (state,) = json.loads(podman("inspect", f"{self.name}-{process}"))
        return int(state["State"]["ExitCode"])

    def answers(self, url: str) -> bool:
        try:
            return requests.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def close(self) -> None:
        for process in self.started:
            podman("rm", "-f", f"{self.name}-{process}")


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    if shutil.which("podman") is None or not (STORE / "storage.conf").exists():
        pytest.fail("run `make image`, which builds the image first", pytrace=False)
    one = Deployment(tmp_path)
    yield one
    one.close()


def test_one_image_is_every_process_and_a_chain_runs_through_it(deployment: Deployment) -> None:
    deployment.run(*PROCFILE["release"].split())
    deployment.start("web")
    deployment.start("worker", *PROCFILE["worker"].split())
    callbacks = f"{deployment.web_url}/callbacks/scale"
    deployment.start(
        "sandbox",
        *("weighbridge", "sandbox", "serve", "--port", str(deployment.sandbox_port)),
        *("--callback-url", callbacks),
    )
    wait_until(lambda: deployment.answers(f"{deployment.web_url}/livez"), 30, "web answers")
    wait_until(lambda: deployment.answers(f"http://127.0.0.1:{deployment.sandbox_port}/"), 30, "the sandbox")
    assert deployment.execute("web", "id", "-u").strip() == str(USER)
    said = deployment.execute("web", "weighbridge", "demo")
    assert "Created the follow-up, a box task" in said
    assert "Received the box task's callback: completed" in said
    components = json.loads(deployment.execute("web", "python", "deploy/sbom.py"))["components"]
    assert {"pkg:pypi/flask@", "pkg:deb/debian/libc6@"} <= {
        one["purl"].partition("@")[0] + "@" for one in components
    }
    out = "var/export"
    deployment.execute("web", "weighbridge", "export", "parquet", out)
    exported = json.loads(deployment.execute("web", "cat", f"{out}/export.json"))
    assert exported["written"]["tasks"] == 2
    for process in ("web", "worker", "sandbox"):
        assert deployment.stop(process) == 0, process
