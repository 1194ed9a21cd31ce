"""Send errors to Sentry and traces to an OpenTelemetry collector, if SENTRY_DSN and OTEL_EXPORTER_OTLP_ENDPOINT are set.

What is sent is chosen by name, so that a key, a body or the query of a URL never is. The packages are in
requirements-telemetry.txt.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from config.settings import Settings
from config.version import VERSION

if TYPE_CHECKING:
    from flask import Flask
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from sentry_sdk.types import Event, Hint

SENT_ATTRIBUTES = frozenset(
    {
        "celery.action",
        "celery.state",
        "db.name",
        "db.statement",
        "db.system",
        "http.method",
        "http.route",
        "http.status_code",
        "messaging.destination",
        "messaging.message.id",
    }
)
"""Attributes of spans that are sent. Statements have placeholders in place of values."""
UNTRACED_PATHS = "livez,readyz,metrics"


def set_up_telemetry(settings: Settings, process: str) -> None:
    """Set up what the settings ask for. Call it once a process, before the Flask application is built."""
    if dsn := settings.sentry_dsn:
        _set_up_sentry(dsn, process)
        # Two processes must not send over one connection, as those of Celery's pool would.
        os.register_at_fork(after_in_child=lambda: _set_up_sentry(dsn, process))
    if settings.otel_exporter_otlp_endpoint:
        _set_up_tracing(settings, process)


def trace_requests(app: Flask, settings: Settings) -> None:
    """Record a span for each request of the application."""
    if settings.otel_exporter_otlp_endpoint:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument_app(app, excluded_urls=UNTRACED_PATHS)  # type: ignore[no-untyped-call]


def _set_up_sentry(dsn: str, process: str) -> None:
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.integrations.dedupe import DedupeIntegration
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration
    from sentry_sdk.integrations.flask import FlaskIntegration
    from sentry_sdk.integrations.logging import LoggingIntegration
    from sentry_sdk.integrations.threading import ThreadingIntegration

    sentry_sdk.init(
        dsn,
        release=VERSION,
        # The default integrations send arguments of commands, and URLs with their queries.
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            AtexitIntegration(callback=lambda *_: None),
            CeleryIntegration(),
            DedupeIntegration(),
            ExcepthookIntegration(),
            FlaskIntegration(),
            LoggingIntegration(level=None),
            ThreadingIntegration(propagate_hub=False),
        ],
        include_local_variables=False,
        max_request_body_size="never",
        max_breadcrumbs=0,
        send_default_pii=False,
        before_send=_without_request_and_texts,
    )
    sentry_sdk.set_tag("process", process)


def _without_request_and_texts(event: Event, _hint: Hint) -> Event:
    """Keep no header, URL or body of a request, and no text of an exception: it may quote what was sent."""
    if "request" in event:
        event["request"] = {"method": event["request"].get("method")}
    for exception in event.get("exception", {}).get("values", ()):
        exception["value"] = ""
    return event


def _set_up_tracing(settings: Settings, process: str) -> None:
    from opentelemetry import propagate, trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    from opentelemetry.util.re import parse_env_headers

    headers = parse_env_headers(settings.otel_exporter_otlp_headers or "", liberal=True)
    endpoint = f"{settings.otel_exporter_otlp_endpoint}/v1/traces"
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"weighbridge-{process}", "service.version": VERSION})
    )
    provider.add_span_processor(
        BatchSpanProcessor(_filtered(lambda: OTLPSpanExporter(endpoint, headers=headers)))
    )
    trace.set_tracer_provider(provider)
    # Baggage of a request would be passed on to Scale and to hosts of result files.
    propagate.set_global_textmap(TraceContextTextMapPropagator())
    # SQLAlchemy's own instrumentation does not know version 2.1.
    PsycopgInstrumentor().instrument()
    RequestsInstrumentor().instrument()
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]


def _filtered(make_exporter: Callable[[], SpanExporter]) -> SpanExporter:
    """Return an exporter that sends what `_filtered_span` leaves of each span."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    @cache
    def exporter(_pid: int) -> SpanExporter:
        """Return the exporter of a process: after a fork two would send over one connection."""
        return make_exporter()

    class Filtered(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return exporter(os.getpid()).export([_filtered_span(span) for span in spans])

        def shutdown(self) -> None:
            exporter(os.getpid()).shutdown()

    return Filtered()


def _filtered_span(span: ReadableSpan) -> ReadableSpan:
    """Return a span with SENT_ATTRIBUTES, the name of the server that is called, and the type of an error."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.status import Status

    given: Mapping[str, Any] = span.attributes or {}
    attributes = {name: value for name, value in given.items() if name in SENT_ATTRIBUTES}
    if span.kind == SpanKind.CLIENT and "http.url" in given:
        attributes["server.address"] = urlsplit(str(given["http.url"])).hostname or ""
    for event in span.events:
        attributes["error.type"] = str((event.attributes or {}).get("exception.type", event.name))
    # The name of a request without a route is its path.
    name = f"{given.get('http.method')} {given.get('http.route', '')}".rstrip()
    return ReadableSpan(
        name=name if span.kind == SpanKind.SERVER else span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
