"""The pipeline without processes around it: a service on each kind of database, and a worker that is a function call."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config import Settings
from pipeline.service import Service

LIVE_KEY, TEST_KEY = "live_key", "test_key"


@pytest.fixture
def open_service(database_url: str, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """`open_service(**settings)` → a Service on this test's database, without workflows and without Scale."""
    opened: list[Service] = []
    (tmp_path / "workflows").mkdir()

    def open_one(**settings: Any) -> Service:
        given = {
            "database_url": database_url,
            "workflows_dir": str(tmp_path / "workflows"),
            "artifact_store": str(tmp_path / "artifacts"),
            "secret_key": "secret",
            **settings,
        }
        opened.append(Service.open(Settings(**given)))
        return opened[-1]

    yield open_one
    for one in opened:
        one.engine.dispose()


@pytest.fixture
def here(open_service: Callable[..., Service]) -> Service:
    """The service with its default settings."""
    return open_service()
