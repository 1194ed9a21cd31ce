"""Files from hostile hosts: addresses that must not be reached, and answers that are large, slow, packed or cut."""

import gzip
import hashlib
import io
import os
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3.util.connection

from pipeline.http.client import DownloadRefused, Unavailable
from pipeline.http.download import Fetched, fetch
from tests.fake_server import Answer, FakeServer, ReceivedRequest, reply

SECRET = "X-Amz-Signature=c0ffee"
PUBLIC = "93.184.216.34"  # never reached: the tests that resolve to it catch the connection


def get(
    peer: FakeServer, path: str = "/file", *, max_bytes: int = 10_000_000, max_seconds: float = 10
) -> tuple[Fetched, bytes]:
    sink = io.BytesIO()
    fetched = fetch(
        peer.url + path,
        hosts=[f"127.0.0.1:{peer.port}"],
        max_bytes=max_bytes,
        max_seconds=max_seconds,
        sink=sink,
    )
    return fetched, sink.getvalue()


def once(url: str, hosts: list[str], **bounds: Any) -> Fetched:
    return fetch(url, hosts=hosts, sink=io.BytesIO(), **{"max_bytes": 1000, "max_seconds": 5, **bounds})


def test_a_file_is_written_with_its_digest_size_and_media_type() -> None:
    content = os.urandom(700_000)
    with FakeServer(lambda asked: reply(content, Content_Type="Application/JSON; charset=utf-8")) as peer:
        fetched, written = get(peer, "/a%2Fb?X-Amz-Date=20260131T000000Z&X-Amz-SignedHeaders=host")
    assert written == content
    assert fetched == Fetched(hashlib.sha256(content).hexdigest(), len(content), "application/json")
    assert peer.requests[0].target == "/a%2Fb?X-Amz-Date=20260131T000000Z&X-Amz-SignedHeaders=host"
    assert peer.requests[0].headers["host"] == f"127.0.0.1:{peer.port}"  # a presigned address signs it
    assert peer.requests[0].headers["accept-encoding"] == "identity"
    assert "authorization" not in peer.requests[0].headers


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x",
        "https://evil.example\\@files.example/x",
        "https://files.example:8443/x",
        "http://files.example/x",
        "http://files.example:443/x",
        "https://files.example.evil.example/x",
        "https://user:pass@files.example/x",
        "https://files.example@evil.example/x",
        "file:///etc/passwd",
        "file://files.example/etc/passwd",
        "ftp://files.example/x",
        "s3://files.example/x",
        "scaledata://files.example/x",
        "gopher://files.example:443/x",
        "data:text/plain,x",
        "//files.example/x",
        "/x",
        "",
        "https:///x",
        "https://files.example:99999/x",
        "https://[::1",
        "https://files.example%00.evil.example/x",
        "https://127.0.0.1/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://2130706433/x",
    ],
)
def test_an_address_that_is_not_allowed_is_refused_before_anything_is_looked_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up"))
    with pytest.raises(DownloadRefused):
        once(url, ["files.example"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_a_private_address_behind_a_named_host_is_refused(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = resolve(monkeypatch, {"files.example": [[address]]})
    with pytest.raises(DownloadRefused, match="private or reserved"):
        once(f"https://files.example/x?{SECRET}", ["files.example"])
    assert len(answers) == 1


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, {"files.example": [[PUBLIC, "10.0.0.1"]]})
    with pytest.raises(DownloadRefused, match="private or reserved"):
        once("https://files.example/x", ["files.example"])


def test_a_private_address_written_as_a_number_needs_its_port_named_too() -> None:
    with pytest.raises(DownloadRefused, match="private or reserved"):
        once("https://127.0.0.1/x", ["127.0.0.1"])


def test_a_name_that_can_not_be_resolved_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, {})
    for hosts in (["files.example"], ["files.example:443"]):
        with pytest.raises(Unavailable):
            once("https://files.example/x", hosts)


def test_the_address_that_was_checked_is_the_one_connected_to_and_the_name_the_one_certified(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    """DNS rebinding: the second look-up would give a private address. There is no second look-up."""
    looked_up = resolve(monkeypatch, {"files.example": [[PUBLIC], ["127.0.0.1"]]})
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with FakeServer(lambda asked: reply(b"content"), tls=server_side(certificate)) as peer:
        connected = catch_connections(monkeypatch, peer)
        assert once("https://files.example/x", ["files.example"]).size == 7
    assert connected == [(PUBLIC, 443)]
    assert looked_up == ["files.example"]
    assert peer.requests[0].headers["host"] == "files.example"


def test_a_certificate_for_another_name_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    resolve(monkeypatch, {"other.example": [[PUBLIC]]})
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with FakeServer(lambda asked: reply(b"content"), tls=server_side(certificate)) as peer:
        catch_connections(monkeypatch, peer)
        with pytest.raises(Unavailable, match="SSLError"):
            once("https://other.example/x", ["other.example"])
    assert peer.requests == []


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 403, 404, 410, 429, 500, 503])
def test_any_status_but_200_means_that_the_file_may_be_there_later(status: int) -> None:
    with (
        FakeServer(lambda asked: reply(b"no", status)) as peer,
        pytest.raises(Unavailable, match=f"answered {status}"),
    ):
        get(peer)


def test_a_redirect_within_the_named_hosts_is_followed() -> None:
    def answer(asked: ReceivedRequest) -> bytes:
        return (
            reply(b"", 302, Location="../there?a=1#part")
            if asked.path == "/a/b"
            else reply(asked.target.encode())
        )

    with FakeServer(answer) as peer:
        assert get(peer, "/a/b")[1] == b"/there?a=1"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:1/x",
        "http://169.254.169.254/latest/meta-data/",
        "https://evil.example/",
        "file:///etc/passwd",
        "//evil.example/x",
        "https://evil.example\\@127.0.0.1/",
    ],
)
def test_a_redirect_to_any_other_place_is_refused(location: str) -> None:
    with FakeServer(lambda asked: reply(b"", 302, Location=location)) as peer, pytest.raises(DownloadRefused):
        get(peer)
    assert len(peer.requests) == 1


def test_a_redirect_to_a_named_host_whose_address_is_private_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, {"files.example": [["10.0.0.1"]]})
    with (
        FakeServer(lambda asked: reply(b"", 302, Location="https://files.example/")) as peer,
        pytest.raises(DownloadRefused, match="private or reserved"),
    ):
        once(f"{peer.url}/x", [f"127.0.0.1:{peer.port}", "files.example"])


def test_redirects_that_never_end_are_refused() -> None:
    with (
        FakeServer(lambda asked: reply(b"", 302, Location="/again")) as peer,
        pytest.raises(DownloadRefused, match="5 redirects"),
    ):
        get(peer)
    assert len(peer.requests) == 6


def test_a_redirect_is_not_read_beyond_its_head() -> None:
    def answer(asked: ReceivedRequest) -> Answer:
        return forever() if asked.path == "/file" else reply(b"content")

    def forever() -> Iterator[bytes]:
        yield b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n"
        while True:
            yield b"x" * 65536

    with FakeServer(answer) as peer:
        assert get(peer, max_seconds=10)[1] == b"content"


def test_a_file_that_says_it_is_too_large_is_refused_unread() -> None:
    with (
        FakeServer(lambda asked: b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n") as peer,
        pytest.raises(DownloadRefused, match="larger than 1,000 bytes"),
    ):
        get(peer, max_bytes=1000)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_that_does_not_say_how_large_it_is_ends_at_the_bound(chunked: bool) -> None:
    sent = 0

    def answer(asked: ReceivedRequest) -> Iterator[bytes]:
        nonlocal sent
        yield b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n")
        while True:
            sent += 65536
            yield (b"10000\r\n" if chunked else b"") + b"x" * 65536 + (b"\r\n" if chunked else b"")

    with FakeServer(answer) as peer, pytest.raises(DownloadRefused, match="larger"):
        get(peer, max_bytes=1_000_000)
    assert sent < 20_000_000


def test_packed_bytes_that_unpack_to_nothing_end_at_the_bound_too() -> None:
    def answer(asked: ReceivedRequest) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
        while True:
            yield gzip.compress(b"") * 1000

    with FakeServer(answer) as peer, pytest.raises(DownloadRefused, match="larger"):
        get(peer, max_bytes=100_000)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_file_is_written_unpacked(encoding: str) -> None:
    content = os.urandom(400_000) + bytes(3_000_000)
    packed = (
        gzip.compress(content[:9]) + gzip.compress(content[9:])
        if encoding == "gzip"
        else zlib.compress(content)
    )
    with FakeServer(lambda asked: reply(packed, Content_Encoding=encoding)) as peer:
        assert get(peer)[1] == content


@pytest.mark.slow
def test_a_bomb_of_a_gigabyte_is_left_at_the_bound_and_not_held_in_memory() -> None:
    pack = zlib.compressobj(9, wbits=31)
    bomb = b"".join(pack.compress(bytes(1_000_000)) for _ in range(1000)) + pack.flush()
    assert len(bomb) < 2_000_000
    sink = _Counter()
    with FakeServer(lambda asked: reply(bomb, Content_Encoding="gzip")) as peer:
        tracemalloc.start()
        with pytest.raises(DownloadRefused, match="larger"):
            fetch(
                peer.url,
                hosts=[f"127.0.0.1:{peer.port}"],
                max_bytes=50_000_000,
                max_seconds=20,
                sink=sink,
            )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert sink.size <= 50_000_000
    assert peak < 8_000_000


def test_a_packed_file_that_is_damaged_or_cut_is_unavailable() -> None:
    packed = gzip.compress(os.urandom(100_000))
    for body in (packed[:-1000], b"no gzip at all", b"", packed + b"rubbish"):
        with (
            FakeServer(lambda asked, body=body: reply(body, Content_Encoding="gzip")) as peer,
            pytest.raises(Unavailable, match="compress"),
        ):
            get(peer)


def test_an_encoding_that_is_not_read_is_refused() -> None:
    with (
        FakeServer(lambda asked: reply(b"x", Content_Encoding="br")) as peer,
        pytest.raises(DownloadRefused, match="br"),
    ):
        get(peer)


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n"],
)
def test_a_file_cut_short_is_unavailable(head: bytes) -> None:
    with (
        FakeServer(lambda asked: b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + head + b"x" * 999) as peer,
        pytest.raises(Unavailable),
    ):
        get(peer)


def test_a_body_longer_than_it_said_is_taken_as_far_as_it_said() -> None:
    with FakeServer(
        lambda asked: b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabcdef"
    ) as peer:
        assert get(peer)[1] == b"abc"


def test_a_reset_is_unavailable() -> None:
    def answer(asked: ReceivedRequest) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc"
        raise ConnectionResetError

    with FakeServer(answer) as peer, pytest.raises(Unavailable, match="failed"):
        get(peer)


@pytest.mark.parametrize(
    "head",
    [
        b"",  # the status line itself comes drop by drop
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
    ],
)
def test_a_server_that_drips_is_left_when_the_time_is_over(head: bytes) -> None:
    def answer(asked: ReceivedRequest) -> Iterator[bytes]:
        yield head
        while not peer.wait(0.05):
            yield b"1"

    with FakeServer(answer) as peer, pytest.raises(Unavailable, match="in time"):
        get(peer, max_seconds=0.5)


def test_a_server_that_accepts_and_never_answers_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable, match="in time"):
            once(f"http://127.0.0.1:{port}/x", [f"127.0.0.1:{port}"], max_seconds=0.3)


def test_nobody_listening_is_unavailable() -> None:
    with FakeServer(lambda asked: b"") as peer:
        pass
    with pytest.raises(Unavailable, match="NewConnectionError"):
        get(peer)


def test_what_the_sink_raises_is_not_taken_for_a_fault_of_the_server() -> None:
    class Full:
        def write(self, piece: bytes) -> None:
            raise OSError("no space left")

    with FakeServer(lambda asked: reply(b"content")) as peer, pytest.raises(OSError, match="no space left"):
        fetch(peer.url, hosts=[f"127.0.0.1:{peer.port}"], max_bytes=100, max_seconds=5, sink=Full())


def test_no_error_shows_the_query_of_an_address() -> None:
    def resets(asked: ReceivedRequest) -> bytes:
        raise ConnectionResetError

    answers = [
        lambda asked: reply(b"", 403),
        lambda asked: reply(b"x" * 2000),
        lambda asked: reply(b"", 302, Location=f"https://evil.example/?{SECRET}"),
        lambda asked: reply(b"", 302, Location=f"ftp://u:{SECRET}@evil.example/?{SECRET}"),
        lambda asked: b"HTTP/1.1 2OO OK\r\n\r\n",
        resets,
    ]
    for answer in answers:
        with FakeServer(answer) as peer, pytest.raises((DownloadRefused, Unavailable)) as caught:
            get(peer, f"/x?{SECRET}", max_bytes=1000)
        assert "c0ffee" not in str(caught.value)
        assert caught.value.__cause__ is None or "c0ffee" not in repr(caught.value.__cause__)


class _Counter:
    size = 0

    def write(self, piece: bytes) -> None:
        self.size += len(piece)


# What the network would say: no test may reach a public address, so look-ups and connections are caught here.


def resolve(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]) -> list[str]:
    """`names` gives for each look-up of a name, in turn, its addresses. Returns the names that were looked up."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host.replace(".", "").isdigit() or ":" in host:
            return real(host, port, *args, **kwargs)
        turn = looked_up.count(host)
        looked_up.append(host)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = names[host][min(turn, len(names[host]) - 1)]
        return [found for address in addresses for found in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return looked_up


def catch_connections(monkeypatch: pytest.MonkeyPatch, peer: FakeServer) -> list[tuple[str, int]]:
    """Every connection goes to `peer`. Returns where they were meant to go."""
    meant: list[tuple[str, int]] = []
    real = urllib3.util.connection.create_connection

    def create_connection(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        meant.append(address)
        return real(("127.0.0.1", peer.port), *args, **kwargs)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", create_connection)
    return meant


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
