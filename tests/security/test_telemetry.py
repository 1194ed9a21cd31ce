"""What an error in a request sends to Sentry and to an OpenTelemetry collector: never the request, variables or texts."""

import json
import subprocess
import sys

from tests.factories.collector import Collector
from tests.service import ROOT

SECRET = "QWERTZUIOPASDF"
FAILING_REQUEST = f"""
import json
import logging
import sys

import requests
import sentry_sdk
from flask import Flask, request
from opentelemetry import trace

from config import load_settings
from config.telemetry import set_up_telemetry, trace_requests

settings = load_settings({{"SECRET_KEY": "-", **json.loads(sys.argv[2])}})
set_up_telemetry(settings, "web")
app = Flask("failing")

@app.post("/callbacks/<name>")
def fail(name):
    key = request.headers["scale-callback-auth"]
    body = request.get_data()
    requests.get(sys.argv[1] + "/elsewhere", timeout=5)
    try:
        requests.get("http://127.0.0.1:9/file?signature={SECRET}", timeout=5)
    except requests.RequestException:
        logging.getLogger("app").exception("could not fetch", extra={{"task_id": "task-1"}})
    raise ValueError(f"{{name}} {{key}} {{body}}")

trace_requests(app, settings)
app.test_client().post(
    "/callbacks/{SECRET}?token={SECRET}", data="{SECRET}", headers={{"scale-callback-auth": "{SECRET}", "baggage": "a={SECRET}"}}
)
app.test_client().get("/{SECRET}")
sentry_sdk.flush()
trace.get_tracer_provider().shutdown()
"""


def test_an_error_is_sent_with_its_place_and_nothing_that_was_received() -> None:
    with Collector() as collector:
        done = subprocess.run(
            [sys.executable, "-c", FAILING_REQUEST, collector.url, json.dumps(collector.settings())],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    errors, traces = collector.sent("/envelope/"), collector.sent("/v1/traces")
    for part in ("ValueError", '"function":"fail"', "could not fetch", "task-1"):
        assert part in errors
    for part in ("POST /callbacks/<name>", "ConnectionError", "server.address"):
        assert part in traces
    (elsewhere,) = (one.headers for one in collector.requests if one.path == "/elsewhere")
    assert "traceparent" in elsewhere
    assert "baggage" not in elsewhere
    assert SECRET not in errors
    assert SECRET not in traces
