"""The environment that `weighbridge up` gives the processes of one folder, and where commands beside it find that again."""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from config.settings import RUNNING, SCALE_RESULT_HOSTS, Settings, kept_secret_key


class AlreadyRunning(Exception):
    """`weighbridge up` runs in this folder already."""


def development_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """`environment` (the process's own by default), and what a development service needs where it says nothing.

    Whoever has a key of Scale's in the shell still works with the sandbox, which takes that key: only SCALE_API_URL
    leads to Scale itself. Callback keys and API token are this folder's own, since a tunnel may publish the service.
    """
    given = {
        name: value
        for name, value in (os.environ if environment is None else environment).items()
        if value.strip()
    }
    port, sandbox_port = given.get("PORT", "8000"), given.get("SANDBOX_PORT", "8001")
    secret = given.get("SECRET_KEY") or kept_secret_key()
    own = {
        "PORT": port,
        "SANDBOX_PORT": sandbox_port,
        "SECRET_KEY": secret,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "API_TOKEN": _derived(secret, "api"),
        "SCALE_API_URL": f"http://127.0.0.1:{sandbox_port}/v1",
        "SCALE_API_KEY": "live_sandbox",
        "SCALE_TEST_API_KEY": "test_sandbox",
        "SCALE_LIVE_CALLBACK_KEYS": _derived(secret, "live_callback"),
        "SCALE_TEST_CALLBACK_KEYS": _derived(secret, "test_callback"),
        "ARTIFACT_HOSTS": ",".join((*SCALE_RESULT_HOSTS, f"127.0.0.1:{sandbox_port}")),
        "ATTACHMENT_HOSTS": f"127.0.0.1:{sandbox_port}",
        "WEB_CONCURRENCY": "1",
    }
    keys = [given[name] for name in ("SCALE_API_KEY", "SCALE_TEST_API_KEY") if name in given]
    own["SANDBOX_API_KEYS"] = ",".join(dict.fromkeys((*keys, *Settings.sandbox_api_keys)))
    commands = f"{Path(sys.executable).parent}{os.pathsep}{given.get('PATH', os.defpath)}"
    return {**own, **given, "PATH": commands, "PYTHONUNBUFFERED": "1"}


def _derived(secret: str, name: str) -> str:
    return f"{name}_{hmac.new(secret.encode(), name.encode(), hashlib.sha256).hexdigest()[:24]}"


@contextlib.contextmanager
def running_with(environment: Mapping[str, str]) -> Iterator[None]:
    """Let commands of this folder find the settings in `environment` while this lasts. Raises AlreadyRunning."""
    names = {field.name.upper() for field in fields(Settings)} & environment.keys()
    RUNNING.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(RUNNING, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning from None
        file.truncate()
        json.dump({name: environment[name] for name in sorted(names)}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
