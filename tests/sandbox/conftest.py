"""Fixtures: a sandbox process, the official SDK configured for it, and a receiver of its callbacks."""

import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import scaleapi

from sandbox.pytest_plugin import ScaleSandbox, running_sandbox
from tests.sandbox.callback_receiver import CallbackReceiver

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[ScaleSandbox]:
    with running_sandbox(HOME, None, "--memory") as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: ScaleSandbox) -> ScaleSandbox:
    """Return an empty sandbox without faults."""
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def slow_sandbox(sandbox: ScaleSandbox) -> ScaleSandbox:
    """Return an empty sandbox whose live tasks stay pending until completed by hand."""
    sandbox.set_speed("manual")
    return sandbox


def sdk(sandbox: ScaleSandbox, key: str) -> scaleapi.ScaleClient:
    """Return the official client with this key; only the URLs are changed."""
    client = scaleapi.ScaleClient(key, api_instance_url=sandbox.api_url)
    client.v2.api_client.configuration.host = sandbox.url
    return client


@pytest.fixture
def live(sandbox: ScaleSandbox) -> scaleapi.ScaleClient:
    """Return the official client with the live key; live tasks stay pending until completed by hand."""
    sandbox.set_speed("manual")
    return sdk(sandbox, sandbox.live_key)


@pytest.fixture
def test_client(sandbox: ScaleSandbox) -> scaleapi.ScaleClient:
    """Return the official client with the test key; every task is completed at once."""
    return sdk(sandbox, sandbox.test_key)


@pytest.fixture
def http(sandbox: ScaleSandbox) -> Callable[..., requests.Response]:
    """Plain requests: `http("GET", "/v1/tasks", key=…, json=…)`, with the live key by default."""
    session = requests.Session()
    session.trust_env = False

    def ask(method: str, path: str, key: str = sandbox.live_key, **options: object) -> requests.Response:
        options = {"auth": (key, ""), "timeout": 30, **options}
        return session.request(method, sandbox.url + path, **options)  # type: ignore[arg-type]

    return ask


@pytest.fixture
def receiver() -> Iterator[CallbackReceiver]:
    receiver = CallbackReceiver()
    yield receiver
    receiver.close()


LETTERS = string.ascii_letters + string.digits + " /&+#%?.:äßñ漢🚗-_"


def arbitrary_name(chance: random.Random) -> str:
    """Return a name with characters that Scale allows: spaces, slashes, other alphabets."""
    middle = "".join(chance.choice(LETTERS) for _ in range(chance.randint(3, 20)))
    return f"n{middle}{chance.getrandbits(40):x}"


@pytest.fixture
def chance() -> random.Random:
    return random.Random(20240607)
