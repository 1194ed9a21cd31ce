"""Conditions of hardened containers, made for real with Linux namespaces."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from config.temporary import ensure_temporary_folder
from tests.servers import Process, wait_until
from tests.service import BIN, ROOT, Service

READ_ONLY = """set -e
mkdir -p {root}/var
mount --bind {folder}/var {root}/var
for place in {root} /tmp /var/tmp /usr/tmp; do
    [ -d $place ] || continue
    mount --rbind $place $place
    mount -o remount,ro,bind $place
done
cd {root}
! touch /tmp/probe 2>/dev/null
unset TMPDIR
exec {command}
"""


def unshare(*options: str) -> list[str]:
    """Return the command that starts another one in namespaces of its own; skip where that is not allowed."""
    command = ["unshare", *options]
    if os.geteuid() != 0 or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("needs the right to create namespaces")
    return command


@pytest.mark.slow
def test_only_var_must_be_writable(service: Callable[..., Service], sqlite_url: str, redis_url: str) -> None:
    """Web and worker run with a read-only root and /tmp, as with `read_only: true` in compose.yaml."""
    namespace = unshare("-m")
    one = service(sqlite_url, redis_url, processes=())
    database = one.folder / "var/weighbridge.db"
    database.parent.mkdir()
    Path(sqlite_url.removeprefix("sqlite:///")).rename(database)
    one.env |= {"DATABASE_URL": "sqlite:///var/weighbridge.db", "ARTIFACT_STORE": "var/artifacts"}
    commands = {
        "web": f"{BIN}/gunicorn wsgi:app",
        "worker": f"{BIN}/celery -A workers.celery_app worker -c 1 --without-gossip --without-mingle",
    }
    for name, command in commands.items():
        script = READ_ONLY.format(folder=one.folder, root=ROOT, command=command)
        one.processes[name] = Process(
            [*namespace, "sh", "-c", script], log=one.folder / f"{name}.log", env=one.env, cwd=ROOT
        )
    one.start("web", "worker")
    assert one.post_callback(b'{"task_id": "t-1", "task": {"type": "annotation"}}').status_code == 200
    large = b'{"task_id": "t-2", "task": {"type": "annotation"}, "response": {"annotations": []}}'
    assert one.post_callback(large.ljust(2_000_000)).status_code == 200
    wait_until(lambda: one.api("/jobs")["data"] == [], what="the worker runs the jobs")
    assert one.api("/tasks/t-2")["task_id"] == "t-2"


def test_ipv4_is_answered_where_ipv6_sockets_take_ipv6_alone(
    service: Callable[..., Service], sqlite_url: str
) -> None:
    namespace = unshare("-n")
    one = service(sqlite_url, processes=())
    script = f"""ip link set lo up && sysctl -qw net.ipv6.bindv6only=1
{BIN}/gunicorn wsgi:app & gunicorn=$!
for attempt in $(seq 300); do
    sleep 0.2
    curl -sf http://127.0.0.1:{one.web_port}/livez && curl -sf 'http://[::1]:{one.web_port}/livez' && break
done
kill $gunicorn; wait"""
    found = subprocess.run(
        [*namespace, "bash", "-c", script], env=one.env, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert found.stdout.count('"ok"') == 2, found.stdout + found.stderr


def test_a_temporary_folder_that_is_writable_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    ensure_temporary_folder()
    assert not (tmp_path / "var").exists()
