"""Explain errors of the broker to people: what is wrong with the Redis of REDIS_URL, and the next step.

The text of an error may contain the URL with its password, so only known errors are described, in words of ours.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import redis.exceptions as errors

from pipeline.operations.database_errors import Explanation

SINGLE_SERVER = "Set REDIS_URL to a single Redis server, or remove it: the worker then polls the database."
RIGHTS = "Allow it every key, channel and command that is not dangerous: `ACL SETUSER NAME ~* &* +@all -@dangerous +info`."
START = "Start Redis, or correct REDIS_URL."

NO_MESSAGE = Explanation("the message did not arrive", START)
BY_TEXT: tuple[tuple[tuple[str, ...], Explanation], ...] = (
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        Explanation("its certificate cannot be verified", "See REDIS_TLS_VERIFY in docs/settings.md."),
    ),
    (
        ("MISCONF",),
        Explanation(
            "it refuses writes because it cannot save its data (MISCONF)",
            "Free the disk of the server of REDIS_URL, or correct the permissions of its folder.",
        ),
    ),
    (
        ("NOREPLICAS",),
        Explanation("it refuses writes without its replicas (NOREPLICAS)", "Start the replicas."),
    ),
    (
        ("without any password configured",),
        Explanation("REDIS_URL has a password, but the server has none", "Remove it from REDIS_URL."),
    ),
    (
        ("Authentication required", "NOAUTH"),
        Explanation("it wants a password, and REDIS_URL has none", "Add user and password to REDIS_URL."),
    ),
    (
        ("DB index",),
        Explanation("it has no database of this number", "Correct the number at the end of REDIS_URL."),
    ),
    (
        ("max number of clients",),
        Explanation("it accepts no more clients", "Raise maxclients of the server of REDIS_URL."),
    ),
    (
        ("unknown command",),
        Explanation("it does not know a command that is needed, as a Sentinel", SINGLE_SERVER),
    ),
    (("MASTERDOWN",), Explanation("it is a replica that lost its primary", "Set REDIS_URL to the primary.")),
    (("CLUSTER",), Explanation("it is a Redis Cluster, which is not supported", SINGLE_SERVER)),
)
"""Marks in the text of an error → what they mean. redis-py has no class of its own for these."""

CLUSTER = Explanation("it is a Redis Cluster, which is not supported", SINGLE_SERVER)
BY_CLASS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Explanation], ...] = (
    (
        errors.MasterDownError,
        Explanation("it is a replica that lost its primary", "Set REDIS_URL to the primary server."),
    ),
    (
        (errors.ClusterError, errors.ClusterCrossSlotError, errors.AskError, errors.TryAgainError),
        CLUSTER,
    ),
    (
        errors.ReadOnlyError,
        Explanation(
            "it is a read-only replica (READONLY)",
            "Set REDIS_URL to the primary server, or wait for the failover.",
        ),
    ),
    (
        errors.OutOfMemoryError,
        Explanation("its memory is full (OOM)", "Raise maxmemory of the server of REDIS_URL."),
    ),
    (errors.BusyLoadingError, Explanation("it is still loading its data", "Wait until it is up.")),
    (
        errors.NoPermissionError,
        Explanation("the user of REDIS_URL has no permission for what is needed", RIGHTS),
    ),
    (
        (errors.AuthenticationError, errors.AuthenticationWrongNumberOfArgsError, errors.AuthorizationError),
        Explanation(
            "it refuses the user or password of REDIS_URL",
            "Correct them; write special characters of a password in percent form, as %40 for @.",
        ),
    ),
    (
        errors.InvalidResponse,
        Explanation("what answers is not Redis", "Correct host and port in REDIS_URL."),
    ),
    (
        ssl.SSLError,
        Explanation(
            "it does not speak TLS", "Write redis:// instead of rediss:// in REDIS_URL, or correct its port."
        ),
    ),
    (socket.gaierror, Explanation("its host name is unknown", "Correct the host in REDIS_URL.")),
    (FileNotFoundError, Explanation("its socket does not exist", START)),
    (PermissionError, Explanation("its socket may not be opened", "Correct the permissions of the socket.")),
    (ConnectionRefusedError, Explanation("nothing listens there", START)),
    (
        (ConnectionResetError, BrokenPipeError),
        Explanation("it closes the connection", "Correct REDIS_URL: a server with TLS needs rediss://."),
    ),
    ((errors.TimeoutError, TimeoutError), Explanation("it does not answer in time", START)),
)
"""Classes of errors → what they mean. The first that matches counts."""


def explain(error: BaseException) -> Explanation:
    """Return what is wrong with the broker and the next step, without a part of REDIS_URL."""
    chain = list(_chain(error))
    text = " ".join(str(one) for one in chain if isinstance(one, (errors.RedisError, OSError)))
    for marks, explanation in BY_TEXT:
        if any(mark in text for mark in marks):
            return explanation
    for classes, explanation in BY_CLASS:
        if any(isinstance(one, classes) for one in chain):
            return explanation
    if any(isinstance(one, errors.ConnectionError) and "closed" in str(one) for one in chain):
        return Explanation(
            "it closes the connection", "Correct REDIS_URL: a server with TLS needs rediss://."
        )
    return Explanation(f"it does not answer as expected ({type(chain[-1]).__name__})", START)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes: kombu wraps redis-py's errors, which wrap the system's."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
