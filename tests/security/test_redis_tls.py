"""A broker with a certificate that no authority signed: refused, unless a setting says otherwise."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import Settings, load_settings
from workers.dispatcher import JobDispatcher


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[int]:
    """The port of a TLS server with a self-signed certificate that answers every Redis command with +OK."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to sign a certificate with")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=attacker.example",
         "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    received: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                received.append(secure.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def fault(port: int, **settings: bool) -> str:
    redis_url = f"rediss://:password@127.0.0.1:{port}/0"
    dispatcher = JobDispatcher(Settings(redis_url=redis_url, secret_key="s", **settings))
    try:
        found = dispatcher.fault()
        return found.message if found else ""
    finally:
        dispatcher.celery.close()


def test_a_certificate_that_no_authority_signed_is_refused(impostor: int) -> None:
    assert "certificate cannot be verified" in fault(impostor)


def test_a_setting_allows_a_certificate_that_the_server_signed_itself(impostor: int) -> None:
    assert load_settings({"REDIS_TLS_VERIFY": "false"}).redis_tls_verify is False
    assert "certificate" not in fault(impostor, redis_tls_verify=False)
