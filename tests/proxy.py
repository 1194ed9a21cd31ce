"""A forward proxy as a process of its own: `python -m tests.proxy PORT LOG [TARGET_PORT]`.

Writes one line a request to LOG (`CONNECT host:443`, `GET http://…`). With TARGET_PORT every request ends at that port of
this machine, whatever host it names, as in a network where only the proxy can resolve names.
"""

import contextlib
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit


def serve(port: int, log: Path, target_port: int | None) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=handle, args=(client, log, target_port), daemon=True).start()


def handle(client: socket.socket, log: Path, target_port: int | None) -> None:
    with client, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            if not (chunk := client.recv(65536)):
                return
            head += chunk
        line, _, rest = head.partition(b"\r\n")
        method, target, _ = line.decode().split(" ")
        with log.open("a") as file:
            file.write(f"{method} {target}\n")
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        place = ("127.0.0.1", target_port) if target_port else (parts.hostname, parts.port or 80)
        with socket.create_connection(place) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
                server.sendall(f"{method} {path} HTTP/1.1\r\n".encode() + rest)
            threading.Thread(target=copy, args=(client, server), daemon=True).start()
            copy(server, client)


def copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    port, log, *rest = sys.argv[1:]
    serve(int(port), Path(log), int(rest[0]) if rest else None)
