"""Logs to standard output: coloured lines for a person, JSON for a collector."""

import logging
import sys
from typing import TextIO

import structlog

from config.settings import Settings


class StdoutHandler(logging.StreamHandler[TextIO]):
    """Where the logs of this process go."""


def log_to_standard_error() -> None:
    """For a command: what it prints may be read by a program."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, StdoutHandler):
            handler.stream = sys.stderr


def set_up_logging(settings: Settings) -> None:
    """Route every library's log through structlog, once a process."""
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.log_format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Plain tracebacks: the decorated ones print local variables, and those hold keys.
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    out = StdoutHandler(sys.stdout)
    out.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(settings.log_level.upper())
    for noisy in ("urllib3", "botocore", "kombu", "amqp", "celery", "alembic", "PIL", "fsspec", "s3fs"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
