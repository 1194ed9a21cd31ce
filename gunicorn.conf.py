"""Settings of the web process. `gunicorn wsgi:app` reads this file by itself."""

import gc
import os
import resource
import shutil
import socket
import sys
import tempfile
import threading
from typing import Any

from gunicorn.glogging import Logger

from config import SettingsError, load_settings
from config.deployment import deployment_problems
from config.logging import set_up_logging
from config.telemetry import set_up_telemetry, trace_requests
from config.temporary import ensure_temporary_folder
from gunicorn_worker import MAX_PROCESSES

try:
    settings = load_settings(process="web")
except SettingsError as error:
    raise SystemExit(f"Weighbridge cannot start:\n{error}") from None
set_up_logging(settings)
ensure_temporary_folder()


def wildcard_addresses(port: int) -> list[str]:
    """Return the addresses that accept every connection, over IPv6 if there is IPv6.

    `[::]` is the only one that some platforms route to. It accepts IPv4 too unless the system says otherwise (bindv6only).
    """
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
            is_ipv6_only = probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return [f"0.0.0.0:{port}"]
    return [f"[::]:{port}", f"0.0.0.0:{port}"] if is_ipv6_only else [f"[::]:{port}"]


bind = wildcard_addresses(settings.port)
workers = settings.web_concurrency
threads = settings.web_threads

# Buffers requests, and bounds the time and size of each. gunicorn's parser then applies these limits to a complete head.
worker_class = "gunicorn_worker.BufferingThreadWorker"
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190
# sendfile would bypass the buffer for clients that do not read.
sendfile = False
# A client could set SCRIPT_NAME and change the routing where every proxy is trusted.
forwarder_headers = ""


def raise_file_limit(wanted: int) -> int:
    """Raise the limit of open files to `wanted` if the system allows it. Return the limit, at most `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


# Each connection is an open file, as are those to the database and the logs.
worker_connections = max(threads + 1, min(2000, raise_file_limit(4000) - 100))

# Longer than a router keeps idle connections (Heroku 90 s, AWS 60 s): the client of a connection must close it first.
keepalive = 95
# Platforms kill 30 s after SIGTERM.
graceful_timeout = 20

# A heartbeat on a slow disk would get healthy workers killed.
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"
# The control socket would be in the home folder.
control_socket_disable = True


GC_THRESHOLDS = 50_000, 20, 50
"""A callback with 1,000 boxes makes some 10,000 objects and no cycles: Python's 700 would look for cycles 15 times."""
SWITCH_INTERVAL_SECONDS = 0.001
"""How long a thread computes before another one gets the interpreter lock. Python's default is 0.005."""


gc.disable()  # importing the application makes objects that stay; post_worker_init switches collection on again


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn is not typed
    """gunicorn's logger without the access log, unless `--access-logfile` asks for one."""

    def access(self, *request: Any) -> None:
        """Log one request."""
        if self.cfg.accesslog:
            super().access(*request)


logger_class = QuietLogger
# gunicorn's messages go to the log of the service (blank entries hide gunicorn's defaults).
logconfig_dict = {
    "root": {},
    "handlers": {},
    "formatters": {},
    "loggers": {"gunicorn.error": {"level": settings.log_level.upper(), "handlers": [], "propagate": True}},
}

# Each web process counts in a file of this folder; /metrics adds the files up.
metrics_folder = tempfile.mkdtemp(prefix="weighbridge-metrics-")
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={metrics_folder}"]


def on_exit(server: object) -> None:
    """Delete the folder of the metrics when the main process ends."""
    shutil.rmtree(metrics_folder, ignore_errors=True)


def on_starting(server: Any) -> None:
    """Log the settings that do not fit this kind of deployment."""
    for name, why in deployment_problems(settings).items():
        server.log.warning("setting does not fit this deployment", extra={"setting": name, "problem": why})


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker the first free place among the counts of connections that the web processes share."""
    taken = {one.place for one in server.WORKERS.values()}
    worker.place = next((place for place in range(MAX_PROCESSES) if place not in taken), None)


def post_fork(server: object, worker: object) -> None:
    """Set up telemetry before the application is loaded."""
    set_up_telemetry(settings, "web")


def post_worker_init(worker: Any) -> None:
    """Give the worker the check of callback keys, and freeze the objects that exist at its start."""
    from app.callbacks import authenticate

    trace_requests(worker.wsgi, settings)
    # The event loop buffers large bodies only of callbacks whose key is right.
    worker.is_authentic_key = lambda key: authenticate(key, settings) is not None
    # The objects that exist now are permanent. Skipping them makes the collections during large bodies shorter.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()
    # A small callback waits for the interpreter lock several times: each wait is shorter next to a thread that computes.
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    if worker.age == 1:  # the first one alone says that the broker cannot be used
        check_broker = worker.wsgi.extensions["dispatcher"].fault
        threading.Thread(target=check_broker, name="broker check", daemon=True).start()
