"""Why a follow-up is not created: a code for programs and a sentence for people. Rewording a sentence changes nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ReasonCode(StrEnum):
    """The cause of a follow-up's state; each value is at most 16 characters."""

    HOLD = "hold"  # the step waits for a person: `hold`
    AGE = "age"  # the result was replayed long after it happened
    IMPORTED = "imported"  # the result came by import
    RECONCILED = "reconciled"  # the result came by reconcile
    DEPTH = "depth"  # too many tasks away from the first one
    JOIN = "join"  # a join fired without all of its results
    INCOMPLETE = "incomplete"  # a result file that the step uses could not be read
    DRY_RUN = "dry_run"
    INVALID = "invalid"  # the request cannot be built, or Scale would refuse it
    LIMIT = "limit"  # a limit of the workflow or the step
    MISSING_KEY = "missing_key"  # no API key for the environment
    MISSING_URL = "missing_url"  # PUBLIC_URL is not set
    VERIFY = "verify"  # Scale says something else of the source than its callback did
    ENVIRONMENT = "environment"  # the API key belongs to the other environment
    REFUSED = "refused"  # Scale refused the request
    FILE = "file"  # a file of the request cannot be built
    RECALLED = "recalled"  # Scale took the source's result back
    PERSON = "person"  # a person canceled it
    REPLANNED = "replanned"  # other follow-ups were planned instead


class Reason(NamedTuple):
    """A code and its sentence."""

    code: ReasonCode
    text: str


class MissingFile(Exception):
    """Raised when a value depends on a result file that could not be read. args[0] is the reason."""
