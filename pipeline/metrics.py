"""Prometheus metrics that a process measures itself: how long jobs, calls of Scale and downloads take.

What the tables know is not counted here: pipeline/operations/queries/metrics.py reads it. Web processes
show these metrics at `/metrics`, workers at WORKER_METRICS_PORT.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import REGISTRY, CollectorRegistry, Histogram, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
"""Upper bounds of the buckets: from a local statement to the longest download."""

CALLBACK_SECONDS = Histogram(
    "weighbridge_callback_duration_seconds",
    "Time to read, store and answer a callback, by HTTP status",
    ["status"],
    buckets=SECONDS,
)
JOB_SECONDS = Histogram(
    "weighbridge_job_duration_seconds",
    "Duration of one attempt of a job, by kind and outcome: finished, postponed, failed or lease_lost",
    ["kind", "outcome"],
    buckets=SECONDS,
)
SCALE_REQUEST_SECONDS = Histogram(
    "weighbridge_scale_request_duration_seconds",
    "Duration of a request to Scale's API, by method and HTTP status; status none: no answer",
    ["method", "status"],
    buckets=SECONDS,
)
ARTIFACT_FETCH_SECONDS = Histogram(
    "weighbridge_artifact_fetch_duration_seconds",
    "Duration of one attempt to download a result file, by outcome: stored, unavailable or refused",
    ["outcome"],
    buckets=SECONDS,
)


def process_registry() -> CollectorRegistry:
    """Return the metrics of all processes that share PROMETHEUS_MULTIPROC_DIR, or of this one without it."""
    shared = CollectorRegistry()
    try:
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    except ValueError:
        return REGISTRY
    return shared


def serve_metrics(port: int) -> None:
    """Serve `process_registry` at `port` of every address, from a thread. Raises OSError if the port is in use."""
    start_http_server(port, registry=process_registry())


class Outcome:
    """The outcome of a measured block, which it sets before it ends."""

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label


@contextmanager
def measure(histogram: Histogram, *labels: str, outcome: str) -> Iterator[Outcome]:
    """Observe the duration of a block in `histogram` under `labels` and the outcome: `outcome` if the block sets no other."""
    result = Outcome(outcome)
    started = perf_counter()
    try:
        yield result
    finally:
        histogram.labels(*labels, result.label).observe(perf_counter() - started)


def observe_scale_request(method: str, status: int | None, seconds: float) -> None:
    """Record one request to Scale's API. `status` is None if there was no answer."""
    SCALE_REQUEST_SECONDS.labels(method, "none" if status is None else str(status)).observe(seconds)
