"""Settings of one sandbox, and the accounts that its API keys belong to."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

SPEEDS = ("instant", "realistic", "manual")
LIVE_CALLBACK_KEY, TEST_CALLBACK_KEY = "live_callback_sandbox", "test_callback_sandbox"
"""The callback keys that every sandbox may send to any URL. They are public, so no service should accept them."""


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """Hold the settings of one sandbox.

    `url` is the base URL of the sandbox, without a path; result files get URLs below it. `database` None keeps everything
    in memory. `speed` says when tasks of live keys are completed; those of test keys are completed in the answer to their
    creation. `time_scale` is how many of Scale's seconds pass in one second here: at 3600, the 24 hours of retries take
    24 s. `rejection_share` is the share of completed tasks that the simulated reviewer rejects; it accepts the others, and reviews
    none if the share is None. With `confidences`, responses of documents have them. `callback_url` receives the callbacks of tasks without a callback_url. `service_url` is the endpoint of
    the service under development: it alone receives `live_callback_key` and `test_callback_key`.
    """

    api_keys: tuple[str, ...] = field(default=("test_sandbox", "live_sandbox"), repr=False)
    live_callback_key: str = field(default=LIVE_CALLBACK_KEY, repr=False)
    test_callback_key: str = field(default=TEST_CALLBACK_KEY, repr=False)
    url: str = "http://127.0.0.1:8001"
    database: Path | None = None
    speed: str = "instant"
    time_scale: float = 1.0
    rejection_share: float | None = None
    confidences: bool = False
    seed: int = 0
    callback_url: str | None = None
    service_url: str | None = None

    @cached_property
    def accounts(self) -> dict[str, str]:
        """Return the account of each API key, by key."""
        return {key: account_of(key) for key in self.api_keys}


def is_test_key(api_key: str) -> bool:
    """Return whether a key belongs to the test environment. Source: keys in Scale's dashboard and its SDK's tests."""
    return api_key.startswith("test_") or api_key.endswith("|test")


def account_of(api_key: str) -> str:
    """Return the account of a key: its environment and a digest, so that no key is stored."""
    environment = "test" if is_test_key(api_key) else "live"
    return f"{environment}_{hashlib.sha256(api_key.encode()).hexdigest()[:32]}"


def is_test_account(account: str) -> bool:
    """Return whether an account belongs to the test environment."""
    return account.startswith("test_")
