"""One rule for everything that goes out: the proxies of the environment, never for this machine, and guarded all the same."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.http.client import DownloadRefused, Unreachable, is_public
from pipeline.http.download import fetch
from scale.client import Client, TimedOut
from tests.fake_server import FakeServer, reply
from tests.servers import free_port, wait_until
from tests.service import ROOT

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Proxy:
    """The proxy process, and what it was asked for."""

    def __init__(self, port: int, log: Path) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log

    @property
    def requests(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def start_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Proxy]]:
    """`start_proxy(target_port=None)` → a proxy that HTTP_PROXY and HTTPS_PROXY name."""
    started: list[subprocess.Popen[bytes]] = []

    def start(target_port: int | None = None) -> Proxy:
        port, log = free_port(), tmp_path / "proxy.log"
        command = [sys.executable, "-m", "tests.proxy", str(port), str(log)]
        command += [str(target_port)] if target_port else []
        started.append(subprocess.Popen(command, cwd=ROOT))
        wait_until(lambda: listens(port), what="the proxy listens")
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        return Proxy(port, log)

    yield start
    for process in started:
        process.kill()
        process.wait()


class Sink:
    def __init__(self) -> None:
        self.content = b""

    def write(self, chunk: bytes, /) -> None:
        self.content += chunk


def download(url: str, hosts: list[str], seconds: float = 20) -> bytes:
    sink = Sink()
    fetch(url, hosts=hosts, max_bytes=1000, max_seconds=seconds, sink=sink)
    return sink.content


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    return certificate


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("host", ["files.example", "files.example:443"])
def test_a_result_file_is_fetched_through_the_proxy_that_resolves_its_host(
    host: str, start_proxy: Callable[..., Proxy], trusted: Path
) -> None:
    with FakeServer(lambda _: reply(b"content"), tls=tls(trusted)) as peer:
        proxy = start_proxy(peer.port)
        assert download("https://files.example/x", [host]) == b"content"
    assert proxy.requests == ["CONNECT files.example:443"]


def test_calls_of_scale_go_through_the_proxy(start_proxy: Callable[..., Proxy], trusted: Path) -> None:
    with FakeServer(lambda _: reply({"task_id": "t"}), tls=tls(trusted)) as peer:
        proxy = start_proxy(peer.port)
        assert Client("https://files.example/v1", "key").get_task("t") == {"task_id": "t"}
    assert proxy.requests == ["CONNECT files.example:443"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_never_reached_through_a_proxy(host: str, start_proxy: Callable[..., Proxy]) -> None:
    with FakeServer(lambda _: reply({"task_id": "t"})) as peer:
        proxy = start_proxy()
        assert download(f"http://{host}:{peer.port}/x", [f"{host}:{peer.port}"]) == b'{"task_id": "t"}'
        assert Client(f"http://{host}:{peer.port}/v1", "key").get_task("t") == {"task_id": "t"}
    assert proxy.requests == []


def test_a_host_of_no_proxy_is_reached_directly(
    start_proxy: Callable[..., Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start_proxy()
    monkeypatch.setenv("NO_PROXY", "files.invalid")
    with pytest.raises(Unreachable):
        download("https://files.invalid/x", ["files.invalid"])
    assert proxy.requests == []


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "169.254.169.254", "192.168.1.1", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]"]
)
def test_the_address_guard_holds_through_a_proxy(host: str, start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy()
    with pytest.raises(DownloadRefused, match="private or reserved"):
        download(f"https://{host}/x", [host])
    assert proxy.requests == []


def test_plain_http_to_a_host_without_its_port_is_refused_with_a_proxy_too(
    start_proxy: Callable[..., Proxy],
) -> None:
    proxy = start_proxy()
    with pytest.raises(DownloadRefused):
        download("http://files.example/x", ["files.example"])
    assert proxy.requests == []


def test_an_answer_through_a_proxy_is_aborted_in_time(
    start_proxy: Callable[..., Proxy], trusted: Path
) -> None:
    def slowly(_: Any) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        while not peer.wait(0.2):
            yield b"x"

    with FakeServer(slowly, tls=tls(trusted)) as peer:
        start_proxy(peer.port)
        with pytest.raises(Unreachable, match=r"in time|failed"):
            download("https://files.example/x", ["files.example"], seconds=1.5)
        with pytest.raises(TimedOut):
            Client("https://files.example/v1", "key", total_timeout=1.5).get_task("t")


@pytest.mark.parametrize(
    ("address", "public"),
    [("93.184.216.34", True), ("2606:2800:220:1::1", True), ("10.1.1.1", False), ("::1", False), ("fe80::1%eth0", False),
     ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("224.0.0.1", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_only_public_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public
