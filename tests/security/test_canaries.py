"""No output contains a part of a secret: a canary in every secret setting, real processes, and a search for each part of it."""

import json
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import requests

from tests.factories.collector import Collector
from tests.reliability.load import Customer
from tests.servers import OwnPostgres, free_port, start_redis, wait_until
from tests.service import BIN, ROOT, Service

PART_LENGTH = 6
LETTERS = "GHJKLMNPQRSTVWXYZ"
"""No hexadecimal digit: identifiers and digests in the output cannot contain a part by chance."""
COMMANDS = (
    ("doctor",),
    ("doctor", "--json"),
    *(
        (noun, "list")
        for noun in (
            "deliveries",
            "tasks",
            "follow-ups",
            "jobs",
            "artifacts",
            "subscribers",
            "tokens",
            "audit",
        )
    ),
    ("db", "current"),
    ("creation", "status"),
    ("workflows", "list"),
    ("scale", "list"),
    ("reconcile", "--dry-run"),
)
PAGES = (
    "",
    "settings",
    "tasks",
    "deliveries",
    "quarantine",
    "follow-ups",
    "jobs",
    "workflows",
    "subscribers",
    "tokens",
    "audit",
    "exports",
    "datasets",
)


@dataclass
class Canaries:
    """Random secrets, and what was printed so far."""

    generator: random.Random = field(default_factory=lambda: random.Random(10))
    secrets: dict[str, str] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)

    def new(self, name: str) -> str:
        """Return a secret for a setting, which is searched for at the end."""
        return self.secrets.setdefault(name, "".join(self.generator.choices(LETTERS, k=24)))

    def found(self) -> list[str]:
        """Return which setting's secret, or part of it, is printed where."""
        return [
            f"{name} in {place}: …{text[max(0, text.find(part) - 60) : text.find(part)]}"
            for name, secret in self.secrets.items()
            for part in {
                secret[start : start + PART_LENGTH] for start in range(len(secret) - PART_LENGTH + 1)
            }
            for place, text in self.printed.items()
            if part in text
        ]


def settings_with(canaries: Canaries, database: str, redis: str, scale: str | None) -> dict[str, str]:
    """Return a canary for every secret setting, and for variables of libraries that hold one."""
    new = canaries.new
    given = {
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        "SCALE_API_KEY": f"live_{new('SCALE_API_KEY')}",
        "SCALE_TEST_API_KEY": f"test_{new('SCALE_TEST_API_KEY')}",
        "SCALE_LIVE_CALLBACK_KEYS": new("live callback key"),
        "SCALE_TEST_CALLBACK_KEYS": f"{new('test callback key')},{new('second test callback key')}",
        "SECRET_KEY": new("SECRET_KEY"),
        "API_TOKEN": new("API_TOKEN"),
        "METRICS_TOKEN": new("METRICS_TOKEN"),
        "AWS_ACCESS_KEY_ID": new("AWS_ACCESS_KEY_ID"),
        "AWS_SECRET_ACCESS_KEY": new("AWS_SECRET_ACCESS_KEY"),
        "AWS_SESSION_TOKEN": new("AWS_SESSION_TOKEN"),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SENTRY_DSN": f"http://{new('SENTRY_DSN')}@127.0.0.1:9/1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={new('OTEL_EXPORTER_OTLP_HEADERS')}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "HTTPS_PROXY": f"http://user:{new('HTTPS_PROXY')}@127.0.0.1:9",
        "SWEEP_SECONDS": "1",
        "LOG_LEVEL": "debug",
    }
    return given if scale is None else {**given, "SCALE_API_URL": scale}


def look_everywhere(canaries: Canaries, one: Service, commands: Sequence[tuple[str, ...]] = COMMANDS) -> None:
    """Ask every interface of a running service, rightly and wrongly, and keep what it answers."""
    token = {"Authorization": f"Bearer {one.env['API_TOKEN']}"}
    metrics = {"Authorization": f"Bearer {one.env['METRICS_TOKEN']}"}
    asked = [
        ("GET", "/livez", {}, None),
        ("GET", "/readyz", {}, None),
        ("GET", "/readyz", token, None),
        ("GET", "/metrics", metrics, None),
        ("GET", "/metrics", {}, None),
        ("GET", "/api/v1/tasks", token, None),
        ("GET", "/api/v1/tasks/unknown", token, None),
        ("GET", "/api/v1/tasks", {"Authorization": f"Basic {one.env['API_TOKEN']}"}, None),
        ("GET", "/api/v1/tasks?limit=many", token, None),
        ("GET", "/api/v1/subscribers", token, None),
        ("POST", "/api/v1/subscribers", token, b'{"url": "nowhere"}'),
        ("POST", "/api/v1/subscribers", token, b"no JSON"),
        ("POST", "/callbacks/scale", {"scale-callback-auth": "wrong"}, b"{}"),
        ("POST", "/callbacks/scale", {"scale-callback-auth": one.env["SCALE_LIVE_CALLBACK_KEYS"]}, b"no JSON"),
        ("GET", "/api/openapi.json", {}, None),
        ("GET", "/files/forged", {}, None),
    ]  # fmt: skip
    for number, (method, path, headers, body) in enumerate(asked):
        answer = requests.request(method, one.web_url + path, headers=headers, data=body, timeout=60)
        canaries.printed[f"{number}: {method} {path}"] = f"{answer.headers}{answer.text}"
    browser = requests.Session()
    form = browser.get(f"{one.web_url}/console/sign-in", timeout=60).text
    if csrf := re.search(r'name="csrf_token" value="([^"]+)"', form):
        answer = browser.post(
            f"{one.web_url}/console/sign-in",
            data={"csrf_token": csrf[1], "token": one.env["API_TOKEN"]},
            timeout=60,
        )
        canaries.printed["console sign-in"] = answer.text
    for page in PAGES:
        answer = browser.get(f"{one.web_url}/console/{page}", timeout=60)
        canaries.printed[f"console /{page}"] = answer.text
    printed = run(one.env, f"{BIN}/python", "-c", RUN_EACH, json.dumps(commands))
    for command, output in zip(commands, printed.split(SEPARATOR)[1:], strict=True):
        canaries.printed[f"weighbridge {' '.join(command)}"] = output


SEPARATOR = "--- next command ---"
RUN_EACH = f"""
import json, sys, traceback
from app.commands.main import make_main

for command in json.loads(sys.argv[1]):
    print("{SEPARATOR}", flush=True)
    try:
        make_main()(command, prog_name="weighbridge")
    except SystemExit as exit:
        print(exit, flush=True)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
"""
"""Runs commands one after another in one process, because to start a process takes longer than most commands."""


def run(env: dict[str, str], *command: str) -> str:
    """Return everything that a command prints."""
    done = subprocess.run(
        command,
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


def read_logs(canaries: Canaries, one: Service) -> None:
    for name, process in one.processes.items():
        canaries.printed[f"log of {name}"] = process.log.read_text(errors="replace")


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


@pytest.fixture
def redis_with_password(canaries: Canaries) -> Iterator[str]:
    password = canaries.new("REDIS_URL")
    with start_redis() as server:
        with server.client() as client:
            client.config_set("requirepass", password)
        yield server.url.replace("redis://", f"redis://:{password}@")


def password_with_at(canaries: Canaries) -> str:
    """Return a password with an @ in it, in percent form."""
    return f"{canaries.new('DATABASE_URL')}%40{canaries.new('DATABASE_URL after its @')}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_service_that_works_prints_no_part_of_a_secret(
    canaries: Canaries,
    own_postgres: OwnPostgres,
    redis_with_password: str,
    collector: Collector,
    start_service: Callable[..., Service],
) -> None:
    own_postgres.create_database("weighbridge")
    database = f"postgresql://postgres:{password_with_at(canaries)}@/weighbridge?host={own_postgres.folder}"
    env = settings_with(canaries, database, redis_with_password, None) | collector.settings(
        canaries.new("SENTRY_DSN")
    )
    canaries.printed["alembic"] = run(
        {"PATH": "/usr/bin:/bin", "DATABASE_URL": database}, f"{BIN}/alembic", "upgrade", "head"
    )
    keys = f"{env['SCALE_API_KEY']},{env['SCALE_TEST_API_KEY']}"
    one = start_service(
        database,
        redis_with_password,
        env={**env, "SANDBOX_API_KEYS": keys, "SUBSCRIBER_HOSTS": "127.0.0.1:9"},
    )
    token = {"Authorization": f"Bearer {env['API_TOKEN']}"}
    subscriber = {
        "url": "http://127.0.0.1:9/hook",
        "events": ["task.completed"],
        "headers": {"Authorization": f"Bearer {canaries.new('header of a subscriber')}"},
    }
    made = requests.post(f"{one.web_url}/api/v1/subscribers", json=subscriber, headers=token, timeout=30)
    assert made.status_code == 201, made.text
    canaries.secrets["secret of a subscriber"] = made.json()["secret"].removeprefix("whsec_")
    customer = Customer(one)
    customer.send(2)
    customer.wait()
    look_everywhere(canaries, one)
    one.stop()
    read_logs(canaries, one)
    assert "completed" in canaries.printed["weighbridge tasks list"]  # the commands did look
    canaries.printed["traces"] = traces = collector.sent("/v1/traces")
    for span in ("POST /callbacks/scale", "run/weighbridge.run", "INSERT INTO", "server.address"):
        assert span in traces
    assert canaries.found() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_service_in_which_everything_fails_prints_no_part_of_a_secret(
    canaries: Canaries, collector: Collector, start_service: Callable[..., Service]
) -> None:
    database = f"postgresql://user:{password_with_at(canaries)}@127.0.0.1:9/weighbridge"
    redis = (
        f"redis://user:{canaries.new('REDIS_URL')}%40{canaries.new('REDIS_URL after its @')}@127.0.0.1:9/0"
    )
    scale = f"http://user:{canaries.new('SCALE_API_URL')}@127.0.0.1:9/v1"
    env = settings_with(canaries, database, redis, scale) | collector.settings(canaries.new("SENTRY_DSN"))
    store = {"ARTIFACT_STORE": f"s3://bucket-{free_port()}/prefix"}
    one = start_service(database, redis, env={**env, **store}, processes=("web", "worker"))
    body = json.dumps({"task_id": "1", "response": {}, "task": {"task_id": "1"}}).encode()
    answer = one.post_callback(body, env["SCALE_LIVE_CALLBACK_KEYS"])
    assert answer.status_code == 503
    canaries.printed["answer to a callback"] = answer.text
    wait_until(lambda: "REDIS_URL" in one.processes["worker"].log.read_text(), 60, "the worker says so")
    look_everywhere(
        canaries, one, [*COMMANDS[:3], ("scale", "list")]
    )  # the others fail at the same connection
    one.stop()
    read_logs(canaries, one)
    # The DSN of Sentry names the project, which is no secret of ours.
    canaries.printed["errors"] = errors = collector.sent("/envelope/").replace(
        canaries.secrets["SENTRY_DSN"], ""
    )
    canaries.printed["traces"] = collector.sent("/v1/traces")
    assert "could not store callback" in errors
    assert canaries.found() == []
    assert "Traceback" not in "".join(
        text for name, text in canaries.printed.items() if "weighbridge" in name
    )


REFUSED = {
    "password with a raw @": ("DATABASE_URL", "postgresql://user:{}@{}@127.0.0.1/name"),
    "password with a slash": ("DATABASE_URL", "postgresql://user:{}/{}@127.0.0.1/name"),
    "password with a question mark": ("DATABASE_URL", "postgresql://user:{}?{}@127.0.0.1/name"),
    "password with a hash sign": ("REDIS_URL", "redis://user:{}#{}@127.0.0.1:1/0"),
    "password in place of the port": ("REDIS_URL", "redis://127.0.0.1:{}{}/0"),
    "scheme that is wrong": ("DATABASE_URL", "mysql://user:{}{}@127.0.0.1/name"),
    "libpq's other form": ("DATABASE_URL", "host=127.0.0.1 user=a password={}{}"),
    "credentials of PUBLIC_URL": ("PUBLIC_URL", "https://user:{}{}@weighbridge.example"),
    "query of PUBLIC_URL": ("PUBLIC_URL", "https://weighbridge.example/?token={}{}"),
    "key with a blank": ("SCALE_LIVE_CALLBACK_KEYS", "{} {}"),
    "key with an umlaut": ("SCALE_API_KEY", "live_{}ä{}"),
    "token with a line break": ("API_TOKEN", "{}\n{}"),
    "live key for test": ("SCALE_TEST_API_KEY", "live_{}{}"),
    "credentials of a host": ("ARTIFACT_HOSTS", "user:{}{}@host"),
    "signed URL in place of a host": ("ATTACHMENT_HOSTS", "https://host/file?signature={}{}"),
    "webhook in place of a host": ("SUBSCRIBER_HOSTS", "example.com,https://user:{}{}@hook"),
    "scheme of Scale": ("SCALE_API_URL", "ftp://user:{}{}@scale.example/v1"),
}


COMPARED = "live key for test"
"""Is refused alone: settings are compared only when each of them can be read."""
SCALE_KEYS = ("SCALE_API_KEY", "SCALE_TEST_API_KEY")


def groups() -> list[list[str]]:
    """Return the cases in groups that one process can refuse together: each setting once in a group."""
    found: list[list[str]] = []
    for case, (setting, _) in REFUSED.items():
        if case == COMPARED:
            continue
        free = (group for group in found if setting not in {REFUSED[other][0] for other in group})
        if (group := next(free, None)) is None:
            found.append(group := [])
        group.append(case)
    return [*found, [COMPARED]]


@pytest.mark.parametrize("cases", groups(), ids="; ".join)
def test_values_that_are_refused_are_not_repeated(canaries: Canaries, cases: list[str]) -> None:
    given = {
        setting: form.format(canaries.new(f"first of {case}"), canaries.new(f"second of {case}"))
        for case, (setting, form) in ((case, REFUSED[case]) for case in cases)
    }
    env = {"PATH": "/usr/bin:/bin", "SECRET_KEY": "s", "PORT": str(free_port()), **given}
    processes = (
        (f"{BIN}/gunicorn", "wsgi:app"),
        (f"{BIN}/weighbridge", "doctor"),
        (f"{BIN}/celery", "-A", "workers.celery_app", "worker"),
        (f"{BIN}/alembic", "upgrade", "head"),
        (f"{BIN}/weighbridge", "up"),
    )
    # Every process reads its settings alike: all of them refuse the largest group, two of them each other one.
    for process in processes if cases == groups()[0] else processes[:2]:
        printed = run(env, *process)
        canaries.printed[" ".join(process)] = printed
        if process[1:] != ("upgrade", "head"):
            for setting in given:
                assert setting in printed or (process[1] == "up" and setting in SCALE_KEYS), process
            assert "Traceback" not in printed
    assert canaries.found() == []
