"""Log lines: fixed texts with fields, and no value that forges a line."""

import json
import logging
from collections.abc import Iterator

import pytest

from config import Settings
from config.logging import set_up_logging

FORGED = "x\n2026-01-01T00:00:00Z [critical ] FAKE LINE [gunicorn]\x1b]0;pwned\x07\r\x9b31m\u2028"


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("place", ["field", "message", "argument", "exception"])
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_value_forges_a_line_or_reaches_the_terminal(
    log_format: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(Settings(log_format=log_format, secret_key="s"))
    log = logging.getLogger("test")
    if place == "field":
        log.warning("event", extra={"task_id": FORGED})
    elif place == "message":
        log.warning(FORGED)
    elif place == "argument":
        log.warning("task %s", FORGED)
    else:
        try:
            raise ValueError(FORGED)
        except ValueError:
            log.exception("event")
    written = capsys.readouterr().out
    assert "FAKE LINE" in written
    assert not set(written) & set("\x1b\x07\r\x9b\u2028")
    assert not any(line.startswith("2026-01-01T") for line in written.splitlines())


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
