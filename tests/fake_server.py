"""A real HTTP server on a loopback port that sends exactly the given bytes, also hostile ones."""

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived."""

    method: str
    target: str  # path and query, still quoted
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = bytes | Iterable[bytes]


class FakeServer:
    """Sends what `answer` returns for each request. A ConnectionResetError in it resets the connection."""

    def __init__(
        self, answer: Callable[[ReceivedRequest], Answer], tls: ssl.SSLContext | None = None
    ) -> None:
        self.answer = answer
        self.requests: list[ReceivedRequest] = []
        self.connections = 0
        self._tls = tls
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "FakeServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def wait(self, seconds: float) -> bool:
        """Sleep inside an answer. Ends early when the test ends."""
        return self._closed.wait(seconds)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(connection):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with contextlib.closing(connection), connection.makefile("rb") as incoming:
                while (request := _read_request(incoming)) is not None:
                    self.requests.append(request)
                    try:
                        answer = self.answer(request)
                        for piece in (answer,) if isinstance(answer, bytes) else answer:
                            connection.sendall(piece)
                            if self._closed.is_set():
                                return
                    except ConnectionResetError:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    if not isinstance(answer, bytes) or b"connection: close" in answer[:2000].lower():
                        return


def _read_request(incoming: Any) -> ReceivedRequest | None:
    line = incoming.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ")
    headers: dict[str, str] = {}
    while (line := incoming.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return ReceivedRequest(method, target, headers, incoming.read(int(headers.get("content-length", 0))))


def reply(body: bytes | str | Any = b"", status: int = 200, **headers: str) -> bytes:
    """Return a complete answer with its length. Values that are not bytes become JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
