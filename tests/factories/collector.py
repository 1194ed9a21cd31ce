"""A receiver of what is sent to Sentry and to an OpenTelemetry collector."""

import gzip

from tests.fake_server import FakeServer, reply


class Collector(FakeServer):
    """Takes everything, and keeps it."""

    def __init__(self) -> None:
        super().__init__(lambda _: reply({}))

    def settings(self, key: str = "key") -> dict[str, str]:
        """Return the settings that name this receiver; `key` is the public key of the project at Sentry."""
        host = f"127.0.0.1:{self.port}"
        return {"SENTRY_DSN": f"http://{key}@{host}/1", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}"}

    def sent(self, path: str) -> str:
        """Return what was sent to addresses that end in `path`, unpacked."""
        bodies = (
            gzip.decompress(one.body) if one.headers.get("content-encoding") == "gzip" else one.body
            for one in self.requests
            if one.path.endswith(path)
        )
        return b"\n".join(bodies).decode("latin-1")
