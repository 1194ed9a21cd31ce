"""A Redis that answers but cannot carry messages: doctor, web and worker name REDIS_URL and the next step, once."""

import contextlib
import re
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from app.commands.up import warn_about_broker
from config import Settings
from tests.reliability.load import Customer
from tests.servers import start_redis, wait_until
from tests.service import BIN, ROOT, Service
from workers.dispatcher import JobDispatcher

PASSWORD = "canary-of-redis"
Broken = Callable[[], "contextlib.AbstractContextManager[str]"]


@contextlib.contextmanager
def redis_with(*commands: str, options: dict[str, str] | None = None, user: str = "") -> Iterator[str]:
    """A Redis after some commands → its URL, with a user's name and password if one is named."""
    with start_redis(options) as server:
        with server.client() as client:
            for command in commands:
                client.execute_command(*command.split())
        yield server.url.replace("redis://", f"redis://{user}:{PASSWORD}@") if user else server.url


def limited(*rights: str) -> Broken:
    return lambda: redis_with(f"ACL SETUSER limited on >{PASSWORD} {' '.join(rights)}", user="limited")


def cluster_without_slots() -> "contextlib.AbstractContextManager[str]":
    return redis_with(options={"cluster-enabled": "yes"})


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """A cluster of one node that serves every slot."""
    with start_redis({"cluster-enabled": "yes"}) as server, server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        wait_until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", 20)
        yield server.url


@contextlib.contextmanager
def cluster_node() -> Iterator[str]:
    """A node of a cluster whose other slots are served elsewhere."""
    with start_redis({"cluster-enabled": "yes", "cluster-require-full-coverage": "no"}) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", 1)
        yield server.url


@contextlib.contextmanager
def misconf() -> Iterator[str]:
    """A Redis whose last snapshot failed, because its folder is gone."""
    with start_redis() as server, server.client() as client:
        folder = server.process.log.parent / "gone"
        folder.mkdir()
        client.config_set("dir", str(folder))
        client.config_set("save", "3600 1")
        client.set("key", "value")
        folder.rmdir()
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] != "ok", 20)
        yield server.url


@contextlib.contextmanager
def wrong_number() -> Iterator[str]:
    with start_redis({"databases": "1"}) as server:
        yield server.url.replace("/0", "/5")


@contextlib.contextmanager
def nothing() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"


BROKEN: dict[str, tuple[Broken, str, str]] = {
    "cluster": (cluster, "Redis Cluster", "single Redis server"),
    "cluster without slots": (cluster_without_slots, "Redis Cluster", "single Redis server"),
    "node of a cluster": (cluster_node, "Redis Cluster", "single Redis server"),
    "user who may only read": (limited("~*", "+@read", "+ping"), "no permission", "ACL SETUSER"),
    "user without the keys": (limited("~other*", "&*", "+@all"), "no permission", "ACL SETUSER"),
    "user who may not receive": (limited("~*", "&*", "+@all", "-brpop"), "no permission", "ACL SETUSER"),
    "wrong password": (
        lambda: redis_with("ACL SETUSER default resetpass >right", user="default"),
        "refuses the user or password",
        "percent form",
    ),
    "no password": (
        lambda: redis_with("ACL SETUSER default resetpass >right"),
        "wants a password",
        "Add user and password",
    ),
    "unknown user": (lambda: redis_with(user="nobody"), "refuses the user or password", "Correct them"),
    "replica": (lambda: redis_with("REPLICAOF 127.0.0.1 1"), "read-only replica", "primary server"),
    "cannot save": (misconf, "MISCONF", "Free the disk"),
    "full": (lambda: redis_with("CONFIG SET maxmemory 1"), "memory is full", "Raise maxmemory"),
    "wrong number": (wrong_number, "no database of this number", "number at the end of REDIS_URL"),
    "no listener": (nothing, "nothing listens there", "correct REDIS_URL"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_the_broker_is_named_with_the_next_step(name: str) -> None:
    broken, message, fix = BROKEN[name]
    with broken() as url:
        dispatcher = JobDispatcher(Settings(redis_url=url, secret_key="s"))
        fault = dispatcher.fault()
        dispatcher.celery.close()
    assert fault is not None
    assert message in fault.message
    assert fix in fault.fix
    assert PASSWORD not in str(fault)


def test_the_rights_that_the_message_names_are_enough() -> None:
    with limited("~*", "&*", "+@all", "-@dangerous", "+info")() as url:
        dispatcher = JobDispatcher(Settings(redis_url=url, secret_key="s"))
        assert dispatcher.fault() is None
        dispatcher.celery.close()


def printed_once(log: str, text: str) -> bool:
    return len(re.findall(text, log)) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name",
    [
        "cluster",
        "user who may only read",
        "user who may not receive",
        "wrong password",
        "replica",
        "cannot save",
        "full",
    ],
)
def test_each_process_says_so_in_one_line_and_the_worker_goes_on(
    name: str, sqlite_url: str, start_service: Callable[..., Service]
) -> None:
    broken, message, fix = BROKEN[name]
    with broken() as url:
        one = start_service(sqlite_url, url, env={"SWEEP_SECONDS": "0.5"})
        customer = Customer(one)
        customer.send(2)
        customer.wait()  # although no message arrives
        doctor = subprocess.run(
            [f"{BIN}/weighbridge", "doctor"],
            env=one.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        worker, web = (one.processes[process].log.read_text() for process in ("worker", "web"))
        assert one.processes["worker"].running
        one.stop("worker")
        assert one.processes["worker"].returncode == 0
    assert doctor.returncode == 1
    said = " ".join(doctor.stdout.split())
    assert "REDIS_URL" in said
    assert message in said
    assert printed_once(worker, r"REDIS_URL cannot be used")
    assert message in worker
    assert fix in worker
    assert message in web
    for log in (worker, web, doctor.stdout + doctor.stderr):
        assert "Traceback" not in log
        assert "Unrecoverable" not in log
        assert "consumer:" not in log
        assert PASSWORD not in log


@pytest.mark.parametrize("name", ["replica", "wrong password", "cluster without slots"])
def test_up_warns_and_starts_nevertheless(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    broken, message, fix = BROKEN[name]
    with broken() as url:
        warn_about_broker(Settings(redis_url=url, secret_key="s"))
    printed = capsys.readouterr().err
    assert printed.startswith("Warning: REDIS_URL: ")
    assert message in printed
    assert fix in printed
