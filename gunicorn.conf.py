"""How the web process listens. `gunicorn wsgi:app` reads this file by itself."""

import gc
import os
import resource
import shutil
import socket
import tempfile
from typing import Any

from gunicorn.glogging import Logger

from config import SettingsError, load_settings
from config.deployment import deployment_problems
from config.logging import set_up_logging

try:
    settings = load_settings()
except SettingsError as error:
    raise SystemExit(f"Weighbridge cannot start:\n{error}") from None
set_up_logging(settings)


def wildcard_host() -> str:
    """[::] takes IPv4 too, and is the only one that some platforms route to; containers may lack IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"
    return "[::]"


bind = f"{wildcard_host()}:{settings.port}"
workers = settings.web_concurrency
threads = settings.web_threads

# gthread alone is held by slow clients: with 500 of them no honest one is answered. See gunicorn_worker.py, which also
# bounds how long a request may take to arrive. These limits bound what one connection can hold, and how many there are.
worker_class = "gunicorn_worker.BufferingThreadWorker"
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190
# Python's sendfile waits for ever for a client that does not read.
sendfile = False
# A client could set SCRIPT_NAME and change the routing where every proxy is trusted.
forwarder_headers = ""


def raise_file_limit(wanted: int) -> int:
    """How many files this process may open, after asking for so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


# Each connection is a file, and so is each of the database's and of the logs. A worker that cannot open one more ends.
worker_connections = max(threads + 1, min(2000, raise_file_limit(4000) - 100))

# Longer than a router keeps its connections (Heroku 90 s, AWS 60 s): the side that sends must be the one that closes.
keepalive = 95
# Platforms kill 30 s after SIGTERM.
graceful_timeout = 20

# A heartbeat on a slow disk would get healthy workers killed.
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"
# It would open a socket in the home folder.
control_socket_disable = True


class QuietLogger(Logger):  # type: ignore[misc]  # gunicorn is not typed
    def access(self, *request: Any) -> None:
        """There is no access log unless somebody asks for one: the log says what became of each callback."""
        if self.cfg.accesslog:
            super().access(*request)


logger_class = QuietLogger
# gunicorn's own words go where all others go (blank entries hide gunicorn's defaults).
logconfig_dict = {
    "root": {},
    "handlers": {},
    "formatters": {},
    "loggers": {"gunicorn.error": {"level": settings.log_level.upper(), "handlers": [], "propagate": True}},
}

# Each web process counts for itself in a file of this folder; /metrics adds them up.
metrics_folder = tempfile.mkdtemp(prefix="weighbridge-metrics-")
raw_env = [f"PROMETHEUS_MULTIPROC_DIR={metrics_folder}"]


def on_exit(server: object) -> None:
    shutil.rmtree(metrics_folder, ignore_errors=True)


def on_starting(server: Any) -> None:
    for name, why in deployment_problems(settings).items():
        server.log.warning("%s %s", name, why)


def post_worker_init(worker: Any) -> None:
    from app.callbacks import authenticate

    # The event loop buffers large bodies only of callbacks whose key is right.
    worker.is_authentic_key = lambda key: authenticate(key, settings) is not None
    # What stands now stays: the collector need not look at it again beside the thousands of objects of each large body.
    gc.collect()
    gc.freeze()
