"""What Scale's refusals mean for every job that calls it.

After a 429 no worker calls that environment until the time that Scale asked for is over; after a 401 or 403 the key is
tried again every minute. Neither counts as an attempt of the job.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from pipeline.jobs.queue import RetryLater
from pipeline.jobs.rate_limits import clear_rate_limit, set_rate_limit
from scale.client import Throttled, Unauthorized

log = logging.getLogger(__name__)

UNAUTHORIZED_RETRY_SECONDS = 60.0


def scope(environment: str) -> str:
    """Return the scope of the environment's rate limit."""
    return f"scale:{environment}"


@contextmanager
def respect_limits(engine: Engine, environment: str) -> Iterator[None]:
    """Turn a Throttled or Unauthorized of the block into RetryLater, after a row that makes every worker wait."""
    try:
        yield
    except Unauthorized as error:
        why = f"Scale refuses the API key: {error.message}"
        seconds = UNAUTHORIZED_RETRY_SECONDS
        log.warning("Scale refuses the API key", extra={"environment": environment, "error": error.message})
    except Throttled as error:
        why, seconds = "Scale asks to slow down", error.delay
    else:
        return
    with engine.begin() as connection:
        set_rate_limit(connection, scope(environment), why, seconds)
    raise RetryLater(why, seconds)


def clear_limits(connection: Connection, environments: Sequence[str]) -> None:
    """Let the next job of these environments call Scale at once."""
    for environment in environments:
        clear_rate_limit(connection, scope(environment))
