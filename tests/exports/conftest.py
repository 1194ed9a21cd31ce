"""A service that holds every geometry, exports of it, and the tools that read them back in their own environments."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exports.engine import write_export
from exports.export import Options
from exports.formats import find_format
from pipeline.datasets import versions
from pipeline.datasets.splits import parse_shares
from pipeline.datasets.versions import Request, Version
from tests.exports.labeled import Labeled, filled_service, labeled_service

ROOT = Path(__file__).parents[2]
READ_BACK = Path(__file__).with_name("read_back.py")

Export = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labeled]:
    """A service that holds every geometry. Tests read it only."""
    with filled_service(tmp_path_factory.mktemp("filled")) as labeled:
        yield labeled


@pytest.fixture(scope="session")
def version(filled: Labeled) -> Version:
    """Everything, in two splits."""
    return versions.create(filled.service, "all", Request(shares=parse_shares("train=0.5,val=0.5")), "ana")


@pytest.fixture
def export(filled: Labeled, version: Version, tmp_path: Path) -> Export:
    """`export("coco", images="copy")` writes to tmp_path / "coco" (`out=` names another place); gives its export.json."""

    def run(
        name: str, out: str | Path | None = None, *, of: Version | None = None, **options: Any
    ) -> dict[str, Any]:
        format_ = find_format(name)
        assert format_ is not None
        for package in format_.packages:
            pytest.importorskip(package)
        address = str(out if out is not None else tmp_path / name)
        return write_export(filled.service, of or version, format_, Options(**options), address)

    return run


@pytest.fixture
def labeled(database_url: str, tmp_path: Path) -> Iterator[Labeled]:
    """An empty service on each kind of database."""
    with labeled_service(database_url, tmp_path / "service") as made:
        yield made


@pytest.fixture
def read_back() -> Callable[..., Any]:
    """`read_back("supervision_yolo", folder)`: what a tool reads, as JSON. Skips where `make test-exports` made no environment."""

    def read(tool: str, *arguments: str | Path) -> Any:
        environment = ROOT / (".venv-labelstudio" if tool.startswith("labelstudio") else ".venv-readers")
        python = environment / "bin" / "python"
        if not python.exists():
            if os.environ.get("REQUIRE_READERS") == "1":
                pytest.fail(f"{environment.name} is missing; `make test-exports` makes it", pytrace=False)
            pytest.skip(f"{environment.name} is missing; `make test-exports` makes it")
        run = subprocess.run(
            [str(python), str(READ_BACK), tool, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/tmp/hf-offline", "PYTHONPATH": ""},
            timeout=170,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-4000:]
        return json.loads(run.stdout.splitlines()[-1])

    return read
