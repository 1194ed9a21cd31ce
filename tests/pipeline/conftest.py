"""The pipeline without processes around it: a service on each kind of database, and a worker that is a function call."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from pipeline.bootstrap import build_service
from pipeline.service import Service
from sandbox.pytest_plugin import ScaleSandbox, running_sandbox
from tests.factories.pipelines import Pipeline


@pytest.fixture
def open_service(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """`open_service(**settings)` → a Service on this test's database, without workflows and without Scale. `pool_size`: the number
    of its connections on PostgreSQL."""
    opened: list[Service] = []
    (tmp_path / "workflows").mkdir()

    def open_one(pool_size: int = 5, **settings: Any) -> Service:
        given = {
            "database_url": database_url,
            "workflows_dir": str(tmp_path / "workflows"),
            "artifact_store": str(tmp_path / "artifacts"),
            "secret_key": "secret",
            "python_steps": ("our_functions",),
            **settings,
        }
        opened.append(build_service(Settings(**given), pool_size=pool_size, cache_seconds=0))
        return opened[-1]

    yield open_one
    for one in opened:
        one.engine.dispose()


@pytest.fixture
def service(open_service: Callable[..., Service]) -> Service:
    """The service with its default settings."""
    return open_service()


@pytest.fixture(scope="session")
def scale_process() -> Iterator[ScaleSandbox]:
    """The stand-in for Scale of this run."""
    with running_sandbox(Path(__file__).parents[2], None, "--memory", "--speed", "manual") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(scale_process: ScaleSandbox) -> ScaleSandbox:
    """The stand-in for Scale, empty. Its people answer when a test says so."""
    scale_process.reset()
    scale_process.clear_faults()
    scale_process.set_speed("manual")
    return scale_process


@pytest.fixture
def scale(sandbox: ScaleSandbox) -> ScaleSandbox:
    """The stand-in for Scale, empty. Its people answer at once."""
    sandbox.set_speed("instant")
    return sandbox


@pytest.fixture
def open_pipeline(
    open_service: Callable[..., Service], sandbox: ScaleSandbox, tmp_path: Path
) -> Callable[..., Pipeline]:
    """`open_pipeline(**settings)` → a Pipeline with the sandbox as its Scale."""

    def open_one(**settings: Any) -> Pipeline:
        given = {
            "scale_api_url": sandbox.api_url,
            "scale_api_key": sandbox.live_key,
            "scale_test_api_key": sandbox.test_key,
            "public_url": "http://127.0.0.1:9",
            **settings,
        }
        return Pipeline(open_service(**given), sandbox, tmp_path / "workflows")

    return open_one


@pytest.fixture
def pipeline(open_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return open_pipeline()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for files.example, its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=files.example -addext subjectAltName=DNS:files.example"
    try:
        subprocess.run(
            [*command.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("no openssl on this machine")
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both
