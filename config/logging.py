"""Logs to standard output: coloured lines for a terminal, JSON for a collector.

A log call has a fixed event text and its facts as fields: `log.warning("job failed", extra={"job_id": …})`.
"""

import io
import logging
import re
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from config.log_handler import StdoutHandler
from config.settings import Settings

QUIET_LIBRARIES = (
    "urllib3",
    "aiobotocore",
    "botocore",
    "kombu",
    "amqp",
    "celery",
    "alembic",
    "PIL",
    "fsspec",
    "s3fs",
)


def set_up_logging(settings: Settings) -> None:
    """Route the logs of every library through structlog. Call it once a process."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *_renderers(settings.log_format),
        ],
    )
    handler = StdoutHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)


def _renderers(log_format: str) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # Plain tracebacks, because the decorated ones print local variables, which hold keys.
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(), exception_formatter=_write_plain_traceback
    )
    return [escape_control_characters, console]


_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def escape_control_characters(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape line breaks and terminal sequences in values, which senders of callbacks choose: no value forges a line."""
    return {name: _escaped(value) for name, value in event.items()}


def _escaped(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return _CONTROL_CHARACTERS.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def _write_plain_traceback(output: TextIO, exc_info: ExcInfo) -> None:
    """Write an indented traceback without terminal sequences, so that no exception's text looks like a log line."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    output.write("\n".join(f"    {_escaped(line)}" for line in text.getvalue().split("\n")))
