"""A server of files, and a service that may fetch from it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.service import Service
from tests.factories.files import Files


@pytest.fixture
def files() -> Iterator[Files]:
    one = Files()
    with one.peer:
        yield one


@pytest.fixture
def service(open_service: Callable[..., Service], files: Files, tmp_path: Path) -> Service:
    """A service that may fetch from `files`, with a workflow for every completed video."""
    (tmp_path / "workflows" / "videos.yaml").write_text(
        "workflow: videos\nsteps:\n  look:\n    after: {type: videoannotation}\n    dry_run: true\n"
        "    create: {type: imageannotation, params: {attachment: 'https://example.com/a.png',"
        " geometries: {box: {objects_to_annotate: [car]}}}}\n"
    )
    return open_service(artifact_hosts=(files.host,))
