"""Log lines: no value that was received forges a line or reaches the terminal."""

import logging

import pytest

from config import Settings
from config.logging import set_up_logging
from tests.config.test_logging import _root_logger

__all__ = ["_root_logger"]

FORGED = "x\n2026-01-01T00:00:00Z [critical ] FAKE LINE [gunicorn]\x1b]0;pwned\x07\r\x9b31m\u2028"


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
