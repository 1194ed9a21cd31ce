"""`/metrics` for Prometheus: counters of this server's processes, and gauges from the database."""

from __future__ import annotations

import hmac
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily
from sqlalchemy.exc import SQLAlchemyError

from app import extensions
from app.responses import json_response
from config.version import VERSION
from pipeline.db.probe import write_fault
from pipeline.insights import MAX_TASKS, late_tasks
from pipeline.metrics import process_registry
from pipeline.operations.queries.metrics import WorkCounts, work_counts
from pipeline.service import Service

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Return all metrics, at most METRICS_SECONDS old. METRICS_TOKEN, if set, is required."""
    token = extensions.service().settings.metrics_token
    sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if token and not hmac.compare_digest(sent, f"Bearer {token}".encode()):
        response = json_response(401, {"error": "Send `Authorization: Bearer METRICS_TOKEN`."})
        response.headers["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return response
    return Response(extensions.metrics().get(), content_type=CONTENT_TYPE_LATEST)


def read_all(service: Service) -> bytes:
    """Return the metrics of the processes and of the database, as Prometheus reads them."""
    return generate_latest(process_registry()) + generate_latest(database_registry(service))


def database_registry(service: Service) -> CollectorRegistry:
    """Return the gauges that are read from the database."""
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(service))
    Info("weighbridge_build", "Version of the service", registry=registry).info(
        {"version": VERSION, "python": platform.python_version(), "database": service.engine.dialect.name}
    )
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
                counts = work_counts(connection)
                late = self.service.totals.get("late tasks", lambda: sum(late_tasks(connection).values()))
        except SQLAlchemyError:
            up.add_metric((), 0)
            return (up,)
        up.add_metric((), 1)
        free = self.service.store.free_bytes()
        writable = GaugeMetricFamily(
            "weighbridge_database_writable",
            "Whether the database accepts writes, tried by one that is rolled back",
        )
        writable.add_metric((), write_fault(self.service.engine) is None)
        space = _single(
            "weighbridge_store_free_bytes",
            "Free space of the folder of ARTIFACT_STORE; absent for a remote store",
            free,
        )
        reconciled = _single(
            "weighbridge_reconcile_age_seconds",
            "Seconds since the last complete comparison with Scale began; absent if none is scheduled or none was made",
            counts.reconcile_age if self.service.settings.reconcile_every_seconds else None,
        )
        late_family = _single(
            "weighbridge_late_tasks",
            f"Open tasks that take longer than nine of ten of their kind took, of the {MAX_TASKS:,} newest tasks",
            late,
        )
        return (up, writable, space, reconciled, late_family, *gauges(counts))


def gauges(counts: WorkCounts) -> Iterable[GaugeMetricFamily]:
    """Yield the metric families of `counts`."""
    jobs = GaugeMetricFamily(
        "weighbridge_jobs", "Unfinished jobs by kind and state", labels=("kind", "state")
    )
    for labels, number in counts.jobs.items():
        jobs.add_metric(labels, number)
    yield jobs
    deliveries = {status: counts.deliveries.get(status, 0) for status in ("stored", "quarantined")}
    yield _by_label(
        "weighbridge_deliveries", "Deliveries that are stored or quarantined", "status", deliveries
    )
    artifacts = {state: counts.artifacts.get(state, 0) for state in ("pending", "failed")}
    yield _by_label("weighbridge_artifacts", "Result files that are pending or failed", "state", artifacts)
    yield _by_label("weighbridge_follow_ups", "Follow-ups by state", "state", counts.follow_ups)
    yield _by_label("weighbridge_held_follow_ups", "Held follow-ups by reason", "reason_code", counts.held)
    yield _single(
        "weighbridge_worker_heartbeat_age_seconds",
        "Seconds since the last worker heartbeat; absent if none was ever recorded",
        counts.heartbeat_age,
    )
    yield _single(
        "weighbridge_oldest_due_job_age_seconds",
        "Seconds that the longest waiting due job has waited; absent if none is due",
        counts.oldest_due_job_age,
    )


def _by_label(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=(label,))
    for value, number in counts.items():
        family.add_metric((value,), number)
    return family


def _single(name: str, documentation: str, value: float | None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation)
    if value is not None:
        family.add_metric((), value)
    return family
