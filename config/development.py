"""The environment of the processes that `weighbridge up` starts in one folder."""

import contextlib
import hashlib
import hmac
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

from config.running import publish_settings
from config.settings import SCALE_RESULT_HOSTS, Settings, stored_secret_key

API_KEYS = ("SCALE_API_KEY", "SCALE_TEST_API_KEY")
CALLBACK_KEYS = ("SCALE_LIVE_CALLBACK_KEYS", "SCALE_TEST_CALLBACK_KEYS")
SANDBOX_SETTINGS = (
    "PORT",
    "PUBLIC_URL",
    "SANDBOX_PORT",
    "SANDBOX_API_KEYS",
    "SANDBOX_SPEED",
    "SANDBOX_REJECTION_SHARE",
    "LOG_FORMAT",
    "LOG_LEVEL",
)


def development_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return `environment` (that of the process by default) with the missing settings of a development service.

    Keys of Scale go to Scale alone: unless SCALE_API_URL names Scale, the service uses API keys of the sandbox, whatever
    keys are set. Callback keys and API token are derived from this folder's secret, since a tunnel may publish the
    service. With the sandbox, the service accepts its callback key in addition to those that are set.
    """
    given = {
        name: value
        for name, value in (os.environ if environment is None else environment).items()
        if value.strip()
    }
    port, sandbox_port = given.get("PORT", "8000"), given.get("SANDBOX_PORT", "8001")
    secret = given.get("SECRET_KEY") or stored_secret_key()
    own = {
        "PORT": port,
        "SANDBOX_PORT": sandbox_port,
        "SECRET_KEY": secret,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "API_TOKEN": api_token(secret),
        "SCALE_API_URL": f"http://127.0.0.1:{sandbox_port}/v1",
        **callback_keys(secret),
        "ARTIFACT_HOSTS": ",".join((*SCALE_RESULT_HOSTS, f"127.0.0.1:{sandbox_port}")),
        "ATTACHMENT_HOSTS": f"127.0.0.1:{sandbox_port}",
        "SANDBOX_API_KEYS": ",".join(Settings.sandbox_api_keys),
        "WEB_CONCURRENCY": "1",
        "DEMONSTRATION": "true",
    }
    commands = f"{Path(sys.executable).parent}{os.pathsep}{given.get('PATH', os.defpath)}"
    result = {**own, **given, "PATH": commands, "PYTHONUNBUFFERED": "1"}
    if uses_sandbox(result):
        result |= _sandbox_api_keys(result["SANDBOX_API_KEYS"])
        result |= {name: ",".join(dict.fromkeys((own[name], result[name]))) for name in CALLBACK_KEYS}
    return result


def uses_sandbox(environment: Mapping[str, str]) -> bool:
    """Return whether a development environment creates tasks at its sandbox instead of Scale."""
    url = urlsplit(environment["SCALE_API_URL"])
    is_local = url.hostname in ("127.0.0.1", "localhost", "::1")
    return is_local and url.netloc.endswith(f":{environment['SANDBOX_PORT']}")


def sandbox_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the sandbox process: a development environment without any secret but its own keys.

    Settings are blank instead of absent, so that a `.env` file cannot supply them.
    """
    withheld = {field.name.upper() for field in fields(Settings)} - set(SANDBOX_SETTINGS)
    own_keys = callback_keys(environment["SECRET_KEY"])
    return {**environment, **dict.fromkeys(withheld, ""), **own_keys}


def api_token(secret: str) -> str:
    """Return the API token of this folder's service."""
    return _derived(secret, "api")


def printable_token(settings: Settings) -> str:
    """Return this folder's API token, or the name of the variable if the user has set another token."""
    token = settings.api_token or ""
    return token if token == api_token(settings.secret_key) else "$API_TOKEN"


def callback_keys(secret: str) -> dict[str, str]:
    """Return the callback keys of this folder's sandbox."""
    return dict(
        zip(
            CALLBACK_KEYS,
            (_derived(secret, name) for name in ("live_callback", "test_callback")),
            strict=True,
        )
    )


def _sandbox_api_keys(keys: str) -> dict[str, str]:
    """Return a live and a test API key of the sandbox, if it has them."""
    names = {
        key.strip(): "SCALE_TEST_API_KEY" if key.strip().startswith("test_") else "SCALE_API_KEY"
        for key in keys.split(",")
    }
    first = {name: key for key, name in reversed(names.items())}
    return {name: first.get(name, "") for name in API_KEYS}


def _derived(secret: str, name: str) -> str:
    return f"{name}_{hmac.new(secret.encode(), name.encode(), hashlib.sha256).hexdigest()[:24]}"


@contextlib.contextmanager
def running_with(environment: Mapping[str, str]) -> Iterator[None]:
    """Let the commands of this folder read the settings in `environment` until the block ends. Raises AlreadyRunning."""
    shared = {name: environment[name] for name in sorted(_shared_settings(environment))}
    shared |= callback_keys(environment["SECRET_KEY"])
    with publish_settings(shared):
        yield


def _shared_settings(environment: Mapping[str, str]) -> set[str]:
    """Return the settings that other commands read: all but keys of Scale, which stay in the environment alone."""
    names = {field.name.upper() for field in fields(Settings)} & environment.keys()
    return names if uses_sandbox(environment) else names - set(API_KEYS)
