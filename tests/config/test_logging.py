"""Log lines: fixed texts with fields."""

import json
import logging
from collections.abc import Iterator

import pytest

from config import Settings
from config.logging import set_up_logging


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_has_the_event_and_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(Settings(log_format="json", secret_key="s"))
    logging.getLogger("test").warning("job failed", extra={"job_id": "1", "task_id": "a"})
    line = json.loads(capsys.readouterr().out)
    assert {name: line[name] for name in ("event", "level", "logger", "job_id", "task_id")} == {
        "event": "job failed",
        "level": "warning",
        "logger": "test",
        "job_id": "1",
        "task_id": "a",
    }
