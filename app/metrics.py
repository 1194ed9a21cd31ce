"""`/metrics` for Prometheus: counters of this server's processes, and gauges from the database."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy.exc import SQLAlchemyError

from app.extensions import service
from app.responses import json_response
from pipeline.db.probe import write_fault
from pipeline.operations.queries.metrics import WorkCounts, work_counts
from pipeline.service import Service

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Return all metrics. METRICS_TOKEN, if set, is required."""
    token = service().settings.metrics_token
    sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if token and not hmac.compare_digest(sent, f"Bearer {token}".encode()):
        response = json_response(401, {"error": "Send `Authorization: Bearer METRICS_TOKEN`."})
        response.headers["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return response
    content = generate_latest(process_registry()) + generate_latest(database_registry(service()))
    return Response(content, content_type=CONTENT_TYPE_LATEST)


def process_registry() -> CollectorRegistry:
    """Return the counters of all processes of this web server, or of this one where none are shared (gunicorn.conf.py)."""
    shared = CollectorRegistry()
    try:
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    except ValueError:
        return REGISTRY
    return shared


def database_registry(service: Service) -> CollectorRegistry:
    """Return the gauges that are read from the database at each scrape."""
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(service))
    return registry


class DatabaseCollector:
    """Gauges from the tables. While the database is down only `weighbridge_database_up` is left, at 0."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def describe(self) -> Iterable[Any]:
        """Describe nothing: registering must not query the database."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges of one scrape."""
        up = GaugeMetricFamily("weighbridge_database_up", "Whether the database answers")
        try:
            with self.service.reader.begin() as connection:
                found = list(gauges(work_counts(connection)))
        except SQLAlchemyError:
            up.add_metric((), 0)
            return (up,)
        up.add_metric((), 1)
        writable = GaugeMetricFamily(
            "weighbridge_database_writable",
            "Whether the database accepts writes, tried by one that is rolled back",
        )
        writable.add_metric((), write_fault(self.service.engine) is None)
        return (up, writable, *found)


def gauges(counts: WorkCounts) -> Iterable[GaugeMetricFamily]:
    """Yield the metric families of `counts`."""
    jobs = GaugeMetricFamily(
        "weighbridge_jobs", "Unfinished jobs by kind and state", labels=("kind", "state")
    )
    for labels, number in counts.jobs.items():
        jobs.add_metric(labels, number)
    yield jobs
    deliveries = GaugeMetricFamily(
        "weighbridge_deliveries", "Deliveries that are stored or quarantined", labels=("status",)
    )
    for status in ("stored", "quarantined"):
        deliveries.add_metric((status,), counts.deliveries.get(status, 0))
    yield deliveries
    follow_ups = GaugeMetricFamily("weighbridge_follow_ups", "Follow-ups by state", labels=("state",))
    for state, number in counts.follow_ups.items():
        follow_ups.add_metric((state,), number)
    yield follow_ups
    yield _age(
        "weighbridge_worker_heartbeat_age_seconds",
        "Seconds since the last worker heartbeat; absent if none was ever recorded",
        counts.heartbeat_age,
    )
    yield _age(
        "weighbridge_oldest_due_job_age_seconds",
        "Seconds that the longest waiting due job has waited; absent if none is due",
        counts.oldest_due_job_age,
    )


def _age(name: str, documentation: str, seconds: float | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation)
    if seconds is not None:
        family.add_metric((), seconds)
    return family
