"""Where logs go: to standard output, or to standard error while a command runs."""

import logging
import sys
from typing import TextIO


class StdoutHandler(logging.StreamHandler[TextIO]):
    """The handler that `set_up_logging` installs."""


def log_to_standard_error() -> None:
    """Send logs to standard error: a command's standard output may be read by a program."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, StdoutHandler):
            handler.stream = sys.stderr
