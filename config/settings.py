"""Read one frozen `Settings` from the environment. No other module reads environment variables."""

import contextlib
import fcntl
import importlib.util
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from environs import Env, EnvValidationError
from marshmallow import ValidationError
from marshmallow.validate import OneOf, Range, Regexp

from config.environment import (
    EnvFileError,
    export_store_variables,
    process_environment,
    read_env_file,
)
from config.running import running_settings

MIB = 1024 * 1024
DEMONSTRATION_WORKFLOWS = "config/demonstration"
_RESULT_BUCKETS = ("scaleapi-attachments", "scaleapi-results")
_RESULT_REGIONS = ("us-west-1", "us-west-2", "ap-northeast-1")
_S3_HOSTS = ("s3", *(f"s3{mark}{region}" for region in _RESULT_REGIONS for mark in ".-"))
SCALE_RESULT_HOSTS = (
    *(f"{bucket}.{s3}.amazonaws.com" for bucket in _RESULT_BUCKETS for s3 in _S3_HOSTS),
    *(f"{s3}.amazonaws.com/{bucket}" for bucket in _RESULT_BUCKETS for s3 in _S3_HOSTS),
    "s3.labeling-data.net",
)
"""Hosts of Scale's results: its buckets in every form of an S3 address. Source: docs, and recorded responses."""


CALLBACK_PATH = "/callbacks/scale"


class SettingsError(Exception):
    """Raised when a setting has an invalid value. The message names the setting and says what to write instead."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one process, named like their environment variables. Sizes are in bytes, times in seconds."""

    scale_api_key: str | None = field(default=None, repr=False)
    scale_test_api_key: str | None = field(default=None, repr=False)
    scale_api_url: str = "https://api.scale.com/v1"
    scale_live_callback_keys: tuple[bytes, ...] = field(default=(), repr=False)
    scale_test_callback_keys: tuple[bytes, ...] = field(default=(), repr=False)
    database_url: str = field(default="sqlite:///var/weighbridge.db", repr=False)
    redis_url: str | None = field(default=None, repr=False)
    redis_tls_verify: bool = True
    public_url: str | None = None
    unique_id_prefix: str = ""
    artifact_store: str = "var/artifacts"
    artifact_hosts: tuple[str, ...] = SCALE_RESULT_HOSTS
    attachment_hosts: tuple[str, ...] = ()
    subscriber_hosts: tuple[str, ...] = ()
    workflows_dir: str = "config/workflows"
    prices_file: str = "config/prices.yaml"
    limits_file: str = "config/limits.yaml"
    python_steps: tuple[str, ...] = ()
    demonstration: bool = False
    api_token: str | None = field(default=None, repr=False)
    metrics_token: str | None = field(default=None, repr=False)
    worker_metrics_port: int | None = None
    sentry_dsn: str | None = field(default=None, repr=False)
    otel_exporter_otlp_endpoint: str | None = field(default=None, repr=False)
    otel_exporter_otlp_headers: str | None = field(default=None, repr=False)
    secret_key: str = field(default="", repr=False)
    secret_key_is_set: bool = False
    verify_before_create: bool = False
    reconcile_every_seconds: int = 0
    retain_bodies_days: int | None = None
    retain_artifacts_days: int | None = None
    retain_rows_days: int | None = None
    max_callback_bytes: int = 64 * MIB
    inline_callback_bytes: int = 1 * MIB
    max_artifact_bytes: int = 2048 * MIB
    port: int = 8000
    web_concurrency: int = 2
    web_threads: int = 12
    worker_concurrency: int = 2
    creation_concurrency: int = 8
    lease_seconds: int = 60
    sweep_seconds: float = 15.0
    log_format: str = "console"
    log_level: str = "info"
    dyno: bool = False
    sandbox_api_keys: tuple[str, ...] = ("test_sandbox", "live_sandbox")
    sandbox_port: int = 8001
    sandbox_speed: str = "instant"
    sandbox_rejection_share: float | None = None

    @property
    def embedded(self) -> bool:
        """Return whether there is no broker: the sweep of the worker publishes inside its own process."""
        return self.redis_url is None

    @property
    def callback_url(self) -> str | None:
        """URL at which Scale reaches the callback endpoint; None until PUBLIC_URL is set."""
        return f"{self.public_url}{CALLBACK_PATH}" if self.public_url else None

    @property
    def workflow_folders(self) -> tuple[str, ...]:
        """Return the folders of the workflow files: WORKFLOWS_DIR, and the demonstration's own where `weighbridge up` runs."""
        return (self.workflows_dir, *((DEMONSTRATION_WORKFLOWS,) if self.demonstration else ()))

    @property
    def connections_per_web_process(self) -> int:
        """Size of the connection pool. Small database plans allow 20: 12 for the web, the rest for workers and commands."""
        return max(2, min(self.web_threads, 12 // self.web_concurrency))

    def scale_key(self, environment: str) -> str | None:
        """Return the API key that creates tasks in `environment` ("live" or "test")."""
        return self.scale_test_api_key if environment == "test" else self.scale_api_key


ONLY_USED_BY = {
    "PORT": "web",
    "WEB_CONCURRENCY": "web",
    "WEB_THREADS": "web",
    "WORKER_CONCURRENCY": "worker",
    "CREATION_CONCURRENCY": "worker",
    "WORKER_METRICS_PORT": "worker",
    "SANDBOX_PORT": "sandbox",
    "SANDBOX_API_KEYS": "sandbox",
    "SANDBOX_SPEED": "sandbox",
    "SANDBOX_REJECTION_SHARE": "sandbox",
}
"""Setting → the only process that uses it."""


def load_settings(environment: Mapping[str, str] | None = None, *, process: str | None = None) -> Settings:
    """Read the settings from `environment`; by default from the process, then a running `weighbridge up`, then `.env`.

    Raises SettingsError, which names every setting at fault. With `process` (web, worker, sandbox or command), settings
    that another process alone uses have their default where they are invalid.
    """
    try:
        env = _Environment(environment, process)
    except EnvFileError as error:
        raise SettingsError(str(error)) from None
    redis_url = env.str("REDIS_URL", None, validate=_validate_redis_url)
    secret_key = env.str("SECRET_KEY", None)
    dyno = env.str("DYNO", None) is not None
    settings = Settings(
        scale_api_key=env.str("SCALE_API_KEY", None, validate=_validate_keys),
        scale_test_api_key=env.str("SCALE_TEST_API_KEY", None, validate=_validate_keys),
        scale_api_url=_without_trailing_slash(
            env.str("SCALE_API_URL", Settings.scale_api_url, validate=_url("http", "https"))
        ),
        scale_live_callback_keys=tuple(
            key.encode() for key in env.names("SCALE_LIVE_CALLBACK_KEYS", validate=_validate_keys)
        ),
        scale_test_callback_keys=tuple(
            key.encode() for key in env.names("SCALE_TEST_CALLBACK_KEYS", validate=_validate_keys)
        ),
        database_url=_database_url(
            env.str("DATABASE_URL", Settings.database_url, validate=_validate_database_url)
        ),
        redis_url=redis_url,
        redis_tls_verify=env.bool("REDIS_TLS_VERIFY", True),
        public_url=_without_trailing_slash(env.str("PUBLIC_URL", None, validate=_validate_public_url)),
        unique_id_prefix=env.str("UNIQUE_ID_PREFIX", "", validate=_validate_prefix),
        artifact_store=env.str("ARTIFACT_STORE", Settings.artifact_store, validate=_validate_store),
        artifact_hosts=env.names("ARTIFACT_HOSTS", Settings.artifact_hosts, validate=_validate_hosts),
        attachment_hosts=env.names("ATTACHMENT_HOSTS", validate=_validate_hosts),
        subscriber_hosts=env.names("SUBSCRIBER_HOSTS", validate=_validate_hosts),
        workflows_dir=env.str("WORKFLOWS_DIR", Settings.workflows_dir),
        prices_file=env.str("PRICES_FILE", Settings.prices_file),
        limits_file=env.str("LIMITS_FILE", Settings.limits_file),
        python_steps=env.names("PYTHON_STEPS", validate=_names_modules),
        demonstration=env.bool("DEMONSTRATION", False),
        api_token=env.str("API_TOKEN", None, validate=_validate_keys),
        metrics_token=env.str("METRICS_TOKEN", None, validate=_validate_keys),
        worker_metrics_port=env.int("WORKER_METRICS_PORT", None, validate=Range(1, 65535)),
        sentry_dsn=env.str("SENTRY_DSN", None, validate=[_url("http", "https"), _needs("sentry_sdk")]),
        otel_exporter_otlp_endpoint=_without_trailing_slash(
            env.str(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                None,
                validate=[_url("http", "https"), _needs("opentelemetry.exporter.otlp")],
            )
        ),
        otel_exporter_otlp_headers=env.str("OTEL_EXPORTER_OTLP_HEADERS", None),
        secret_key=secret_key or stored_secret_key(),
        secret_key_is_set=secret_key is not None,
        verify_before_create=env.bool("VERIFY_BEFORE_CREATE", False),
        reconcile_every_seconds=env.int("RECONCILE_EVERY_SECONDS", 0, validate=Range(min=0)),
        retain_bodies_days=env.int("RETAIN_BODIES_DAYS", None, validate=Range(min=1)),
        retain_artifacts_days=env.int("RETAIN_ARTIFACTS_DAYS", None, validate=Range(min=1)),
        retain_rows_days=env.int("RETAIN_ROWS_DAYS", None, validate=Range(min=1)),
        max_callback_bytes=env.int("MAX_CALLBACK_BYTES", Settings.max_callback_bytes, validate=Range(min=1)),
        inline_callback_bytes=env.int(
            "INLINE_CALLBACK_BYTES", Settings.inline_callback_bytes, validate=Range(min=0)
        ),
        max_artifact_bytes=env.int("MAX_ARTIFACT_BYTES", Settings.max_artifact_bytes, validate=Range(min=1)),
        port=env.int("PORT", Settings.port, validate=Range(1, 65535)),
        web_concurrency=env.int("WEB_CONCURRENCY", Settings.web_concurrency, validate=Range(min=1)),
        web_threads=env.int("WEB_THREADS", Settings.web_threads, validate=Range(min=1)),
        worker_concurrency=env.int("WORKER_CONCURRENCY", Settings.worker_concurrency, validate=Range(min=1)),
        creation_concurrency=env.int(
            "CREATION_CONCURRENCY", Settings.creation_concurrency, validate=Range(min=1)
        ),
        lease_seconds=env.int("LEASE_SECONDS", Settings.lease_seconds, validate=Range(min=1)),
        sweep_seconds=env.float("SWEEP_SECONDS", 15.0 if redis_url else 0.2, validate=Range(0.01, 3600)),
        log_format=env.str("LOG_FORMAT", "json" if dyno else "console", validate=OneOf(("console", "json"))),
        log_level=env.str("LOG_LEVEL", "info", validate=OneOf(("debug", "info", "warning", "error"))),
        dyno=dyno,
        sandbox_api_keys=env.names("SANDBOX_API_KEYS", Settings.sandbox_api_keys),
        sandbox_port=env.int("SANDBOX_PORT", Settings.sandbox_port, validate=Range(1, 65535)),
        sandbox_speed=env.str(
            "SANDBOX_SPEED", Settings.sandbox_speed, validate=OneOf(("instant", "realistic", "manual"))
        ),
        sandbox_rejection_share=env.float("SANDBOX_REJECTION_SHARE", None, validate=Range(0, 1)),
    )
    try:
        env.seal()
    except EnvValidationError as error:
        found = cast(Mapping[str, list[str]], error.error_messages).items()
        wrong = (f"{name}: {' '.join(map(str, messages))}" for name, messages in found)
        raise SettingsError("\n".join(wrong)) from None
    if environment is None and settings.artifact_store.startswith("s3://"):
        export_store_variables(env.file)
    if shared := set(settings.scale_live_callback_keys) & set(settings.scale_test_callback_keys):
        raise SettingsError(
            f"SCALE_LIVE_CALLBACK_KEYS and SCALE_TEST_CALLBACK_KEYS share {len(shared)} key(s): "
            "the environment of a callback would be ambiguous. Remove each of them from one list."
        )
    if problems := _wrong_environment_keys(settings):
        raise SettingsError("\n".join(problems))
    if settings.dyno and settings.database_url.startswith("sqlite"):
        raise SettingsError(
            "DATABASE_URL is a SQLite file and DYNO is set. The disk of a dyno is erased daily and is not shared by web"
            " and worker, so callbacks would be lost. Set DATABASE_URL to a PostgreSQL database."
        )
    return settings


def _wrong_environment_keys(settings: Settings) -> list[str]:
    """Return what is wrong with API keys that name their environment: Scale's keys begin with live_ or test_."""
    problems = []
    live, test = settings.scale_api_key, settings.scale_test_api_key
    if live is not None and (live.lower().startswith("test_") or live.lower().endswith("|test")):
        problems.append("SCALE_API_KEY is a test key; set a live key, or move it to SCALE_TEST_API_KEY.")
    if test is not None and (test.lower().startswith("live_") or test.lower().endswith("|live")):
        problems.append(
            "SCALE_TEST_API_KEY is a live key, which would pay for test results; set a test key, or move it to SCALE_API_KEY."
        )
    if live is not None and live == test:
        problems.append(
            "SCALE_API_KEY and SCALE_TEST_API_KEY are the same key; each environment needs a key of its own. Remove one."
        )
    return problems


class _Environment(Env):
    """Reads one mapping with environs and collects every error. A blank variable counts as absent."""

    def __init__(self, environment: Mapping[str, str] | None, process: str | None = None) -> None:
        super().__init__(eager=False)
        self.file: dict[str, str] = {}
        if environment is None:
            self.file = read_env_file()
            running = running_settings()
            variables = process_environment()
            environment = {**self.file, **running, **variables, **_sandbox_keys(running, variables)}
        unused = {name for name, user in ONLY_USED_BY.items() if process not in (None, user)}
        self._variables = {
            name: value for name, value in environment.items() if name not in unused or _is_valid(name, value)
        }

    def _get_value(self, env_key: str, default: Any) -> Any:
        return unquoted(self._variables.get(env_key, "")) or default

    def names(
        self, name: str, default: tuple[str, ...] = (), validate: Callable[[str], None] | None = None
    ) -> tuple[str, ...]:
        """Read a comma-separated list."""
        value = self.str(name, None, validate=validate)
        return default if value is None else _parts(value)


def _is_valid(name: str, value: str) -> bool:
    """Return whether a setting can be read by itself."""
    try:
        load_settings({name: value, "SECRET_KEY": "-"})
    except SettingsError:
        return False
    return True


QUOTES = "\"'"


def unquoted(value: str) -> str:
    """Return a value without blanks and quotation marks around it: `docker --env-file` passes both on."""
    value = value.strip()
    # A list of quoted values begins and ends with marks that do not belong together.
    if len(value) >= 2 and value[0] == value[-1] and value[0] in QUOTES and value[0] not in value[1:-1]:
        return value[1:-1].strip()
    return value


def _parts(value: str) -> tuple[str, ...]:
    return tuple(part for raw in value.split(",") if (part := unquoted(raw)))


def _sandbox_keys(running: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the API keys of the running service's sandbox, which replace keys of Scale in the shell or in `.env`.

    Empty if the running service uses Scale (its keys are not shared), or if the shell names another server.
    """
    if environment.get("SCALE_API_URL", running.get("SCALE_API_URL")) != running.get("SCALE_API_URL"):
        return {}
    return {name: running[name] for name in ("SCALE_API_KEY", "SCALE_TEST_API_KEY") if name in running}


_validate_prefix = Regexp(
    r"^[A-Za-z0-9._-]{0,40}$", error="Use at most 40 of the characters A-Z a-z 0-9 . _ -"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]]+)(:[0-9]{1,5})?((?:/[\w~-][\w.~-]*)+/?)?", re.ASCII)
"""host[:port][/prefix]; the prefix is plain segments, as the names of S3 buckets and folders are."""
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def _names_modules(value: str) -> None:
    for module in _parts(value):
        if not _MODULE.fullmatch(module):
            raise ValidationError(f"{module!r} is not the name of a Python module, such as config.handlers.")


def _validate_hosts(value: str) -> None:
    for number, host in enumerate(_parts(value), 1):
        if not _HOST.fullmatch(host):
            # What is not a host may be a URL with a password or a signature.
            shown = repr(host) if re.fullmatch(r"[\w.:/-]{1,60}", host, re.ASCII) else f"entry {number}"
            raise ValidationError(
                f"{shown} is not a host. Use names such as example.com, localhost:9000 or s3.example.com/bucket."
            )


def _url(*schemes: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        scheme, found, rest = value.partition("://")
        if scheme not in schemes or not found or not rest:
            raise ValidationError(f"Use a URL that starts with {' or '.join(s + '://' for s in schemes)}.")
        _validate_port(value)

    return check


def _needs(module: str) -> Callable[[str], None]:
    """Return a check that the packages of an optional setting are installed."""

    def check(_value: str) -> None:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # of a parent
            found = None
        if found is None:
            raise ValidationError(
                "Needs packages that are not installed: pip install -r requirements-telemetry.txt"
            )

    return check


def _validate_store(value: str) -> None:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(?!//)", value):
        raise ValidationError("Use the path of a folder, s3://BUCKET/PREFIX, or another URL with ://.")


def _validate_redis_url(value: str) -> None:
    _url("redis", "rediss", "unix", "redis+socket")(value)
    number = urlsplit(value).path.strip("/")
    if value.startswith(("redis://", "rediss://")) and not re.fullmatch(r"[0-9]*", number, re.ASCII):
        raise ValidationError("Must end in the number of a database, as redis://HOST:PORT/0, or in the port.")


def _validate_keys(value: str) -> None:
    """Reject keys that no HTTP header can carry. The message must not contain a part of them."""
    for key in _parts(value):
        if not re.fullmatch(r"[!-~]+", key):
            raise ValidationError(
                "Has a blank or a character outside ASCII inside of a key; copy the key again."
            )
        if key[0] in QUOTES or key[-1] in QUOTES:
            raise ValidationError("Has a quotation mark at one end of a key; remove it.")


def _validate_public_url(value: str) -> None:
    _url("http", "https")(value)
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValidationError("Must not contain a user name or password: Scale's callbacks cannot use them.")
    if "?" in value or "#" in value:
        raise ValidationError(
            "Must not contain a query or fragment; write https://HOST or https://HOST/PATH."
        )
    if not re.fullmatch(r"[!-~]+", value) or "\\" in value or not (parts.hostname or "").strip("."):
        raise ValidationError("Must be plain ASCII without blanks; write https://HOST or https://HOST/PATH.")
    if parts.port == 0:
        raise ValidationError("Must not have the port 0; write https://HOST or https://HOST:PORT.")
    segments = [segment for segment in unquote(parts.path).lower().split("/") if segment]
    if "/".join(["", *segments]).endswith(CALLBACK_PATH):
        raise ValidationError(f"Must not end in {CALLBACK_PATH}, which is added; write https://HOST.")


def _validate_port(address: str) -> None:
    """Reject an address whose password splits it in another place: a later error would print a part of the password."""
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018
        rest = parts.path + parts.query + parts.fragment
        is_split_early = "@" in rest and "@" not in parts.netloc and parts.netloc
        if parts.netloc.count("@") > 1 or is_split_early:
            raise ValueError
    except ValueError:
        raise ValidationError(
            "Cannot be split into user, password, host and port. In a password write %2F for /, %3F for ?, %23 for # and %40 for @."
        ) from None


def _without_trailing_slash(address: str | None) -> Any:
    return address and address.rstrip("/")


_POSTGRESQL = re.compile(r"^(postgres|postgresql|postgresql\+psycopg)://")


def _validate_database_url(url: str) -> None:
    if not _POSTGRESQL.match(url):
        if not re.match(r"^sqlite:///.+", url):
            raise ValidationError("Use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME.")
        return
    # libpq allows several hosts with a port each, which are checked one by one.
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    for host in hosts.split(","):
        _validate_port(f"{scheme}://{user}{at}{host}{slash}{path}")
    from psycopg import ProgrammingError  # SQLite needs no driver of PostgreSQL
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(_POSTGRESQL.sub("postgresql://", url))
    except ProgrammingError as error:  # whose text may contain a part of the password
        unknown = re.search(r'invalid URI query parameter: "(\w+)"', str(error))
        raise ValidationError(
            f"Has the parameter {unknown[1]}, which libpq does not know; correct or remove it."
            if unknown
            else "Is no URL that libpq can read. In a password write %25 for %, %2F for / and %40 for @."
        ) from None


def _database_url(url: str | None) -> str:
    """Return the URL for SQLAlchemy. postgres:// (as on Heroku) and postgresql:// mean psycopg 3."""
    return _POSTGRESQL.sub("postgresql+psycopg://", url or "")


def stored_secret_key() -> str:
    """Return the secret key in var/, generated at the first start: sessions and signed URLs remain valid after a restart."""
    path = Path("var/secret_key")
    with contextlib.suppress(OSError):
        if key := path.read_text().strip():
            return key
    key = secrets.token_urlsafe(32)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a process that starts at the same time waits here
            if made := file.read().strip():
                return made
            file.write(key)
    return key
