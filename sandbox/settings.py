"""What one sandbox is started with."""

from dataclasses import dataclass, field
from pathlib import Path

SPEEDS = ("instant", "realistic", "manual")


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """`address` is where the sandbox itself is reached, without a path; result files are named below it.

    `database` None keeps everything in memory. `speed` says when tasks of live keys are answered; those of test keys
    always are in the answer to their creation. `time_scale` is how many of Scale's seconds pass in one of ours:
    the 24 hours of retries take 24 s at 3600.
    """

    api_keys: tuple[str, ...] = ("test_sandbox", "live_sandbox")
    live_callback_key: str = field(default="live_callback_sandbox", repr=False)
    test_callback_key: str = field(default="test_callback_sandbox", repr=False)
    address: str = "http://127.0.0.1:8001"
    database: Path | None = None
    speed: str = "instant"
    time_scale: float = 1.0
    seed: int = 0
    callback_url: str | None = None


def is_test_key(api_key: str) -> bool:
    """Whether a key belongs to the test world. Source: keys in Scale's dashboard and its SDK's tests."""
    return api_key.startswith("test_") or api_key.endswith("|test")
