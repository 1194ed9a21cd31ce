"""`/metrics` for Prometheus: what this process and its siblings counted, and what the database says of the work."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Any

from flask import Blueprint, Response, current_app, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from app.callbacks import answer
from models import Delivery, FollowUp, Job, KeyValue
from pipeline.db.ids import utcnow
from pipeline.jobs import queue
from pipeline.operations.health import HEARTBEAT
from pipeline.service import Service

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> Response:
    service: Service = current_app.extensions["weighbridge"]
    token = service.settings.metrics_token
    sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if token and not hmac.compare_digest(sent, f"Bearer {token}".encode()):
        refusal = answer(401, {"error": "send `Authorization: Bearer METRICS_TOKEN`"})
        refusal.headers["WWW-Authenticate"] = 'Bearer realm="metrics"'
        return refusal
    content = generate_latest(process_registry()) + generate_latest(database_registry(service))
    return Response(content, content_type=CONTENT_TYPE_LATEST)


def process_registry() -> CollectorRegistry:
    """The counters of every process of this web server; of this one alone where none are shared (gunicorn.conf.py)."""
    shared = CollectorRegistry()
    try:
        MultiProcessCollector(shared)
    except ValueError:
        return REGISTRY
    return shared


def database_registry(service: Service) -> CollectorRegistry:
    """The gauges that the database gives, asked for at each scrape."""
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(service))
    return registry


class DatabaseCollector:
    """Gauges from the tables. When the database is away only `weighbridge_database_up` is left, at 0."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def describe(self) -> Iterable[Any]:
        return ()  # registering must not ask the database

    def collect(self) -> Iterable[GaugeMetricFamily]:
        up = GaugeMetricFamily("weighbridge_database_up", "Whether the database answers")
        try:
            with self.service.reader.begin() as connection:
                found = list(gauges(connection))
        except SQLAlchemyError:
            up.add_metric((), 0)
            return (up,)
        up.add_metric((), 1)
        return (up, *found)


def gauges(connection: Connection) -> Iterable[GaugeMetricFamily]:
    work = GaugeMetricFamily("weighbridge_jobs", "Jobs that are not done", labels=("kind", "state"))
    for labels, number in queue.counts(connection).items():
        work.add_metric(labels, number)
    yield work

    # Those that are processed are nearly all; counting them would read the whole table at each scrape.
    waiting = (
        select(Delivery.status, func.count().label("number"))
        .where(text("deliveries.status != 'processed'"))
        .group_by(Delivery.status)
    )
    deliveries = GaugeMetricFamily(
        "weighbridge_deliveries", "Deliveries that are stored or quarantined", labels=("status",)
    )
    found = {row.status: row.number for row in connection.execute(waiting)}
    for status in ("stored", "quarantined"):
        deliveries.add_metric((status,), found.get(status, 0))
    yield deliveries

    follow_ups = GaugeMetricFamily("weighbridge_follow_ups", "Follow-ups by state", labels=("state",))
    by_state = select(FollowUp.state, func.count()).group_by(FollowUp.state)
    for state, number in connection.execute(by_state):
        follow_ups.add_metric((state,), number)
    yield follow_ups

    present = utcnow()
    beat = connection.scalar(select(func.max(KeyValue.changed_at)).where(KeyValue.key.startswith(HEARTBEAT)))
    due = connection.scalar(select(func.min(Job.run_at)).where(Job.state == "ready", Job.run_at <= present))
    for name, words, since in (
        ("weighbridge_worker_heartbeat_age_seconds", "Since any worker reported; none: it never did", beat),
        ("weighbridge_oldest_due_job_age_seconds", "How long the job that is due longest has waited", due),
    ):
        age = GaugeMetricFamily(name, words)
        if since is not None:
            age.add_metric((), max(0.0, (present - since).total_seconds()))
        yield age
