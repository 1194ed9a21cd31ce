import hashlib
import io
import os
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from pipeline.artifacts.store import ArtifactStore, path
from pipeline.http.download import fetch
from tests.fake_server import FakeServer, reply

CONTENT = b"[]" * 700_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["folder", "file", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder that is not there yet, the same as a URL, and a store that is no folder."""
    memory = f"memory://{uuid.uuid4().hex}/artifacts"
    yield {"folder": f"{tmp_path}/new/store", "file": f"file://{tmp_path}/new/store/", "memory": memory}[
        request.param
    ]
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(address: str) -> ArtifactStore:
    return ArtifactStore(address)


def all_files(address: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(address)
    return [found.removeprefix(root) for found in files.find(root)] if files.exists(root) else []


def test_a_content_is_kept_under_its_digest(store: ArtifactStore, address: str) -> None:
    assert store.put(io.BytesIO(CONTENT)) == (SHA256, len(CONTENT))
    assert store.exists(SHA256)
    assert store.size(SHA256) == len(CONTENT)
    with store.open(SHA256) as file:
        assert file.read() == CONTENT
    assert all_files(address) == [f"/{SHA256[:2]}/{SHA256[2:4]}/{SHA256}"]


def test_the_same_content_twice_is_one_file_and_whole_content_replaces_a_damaged_one(
    store: ArtifactStore, address: str
) -> None:
    store.put(io.BytesIO(CONTENT))
    files, root = fsspec.core.url_to_fs(address)
    files.pipe_file(f"{root}/{path(SHA256)}", b"damaged")
    store.put(io.BytesIO(CONTENT))
    assert store.size(SHA256) == len(CONTENT)
    assert len(all_files(address)) == 1


def test_a_file_that_is_not_kept_leaves_nothing(store: ArtifactStore, address: str) -> None:
    with store.incoming() as file:
        file.write(b"half")
    assert all_files(address) == []


def test_a_file_that_breaks_off_leaves_nothing(store: ArtifactStore, address: str) -> None:
    def write() -> None:
        with store.incoming() as file:
            file.write(b"half")
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        write()
    assert all_files(address) == []


def test_what_is_not_there_says_so(store: ArtifactStore) -> None:
    assert not store.exists(SHA256)
    store.delete(SHA256)
    with pytest.raises(FileNotFoundError):
        store.open(SHA256)
    with pytest.raises(FileNotFoundError):
        store.size(SHA256)


def test_a_deleted_content_is_gone(store: ArtifactStore) -> None:
    store.put(io.BytesIO(CONTENT))
    store.delete(SHA256)
    assert not store.exists(SHA256)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "a" * 65])
def test_a_name_that_is_no_digest_never_reaches_the_store(store: ArtifactStore, name: str) -> None:
    for act in (store.open, store.exists, store.size, store.delete):
        with pytest.raises(ValueError, match="sha256"):
            act(name)
    with pytest.raises(ValueError, match="sha256"), store.incoming() as file:
        file.commit(name)


def test_files_whose_writer_was_killed_are_dropped_once_they_are_old(
    store: ArtifactStore, address: str
) -> None:
    assert store.delete_abandoned(timedelta(0)) == 0
    store.put(io.BytesIO(CONTENT))
    files, root = fsspec.core.url_to_fs(address)
    files.makedirs(f"{root}/incoming", exist_ok=True)
    files.pipe_file(f"{root}/incoming/left", b"half")
    assert store.delete_abandoned(timedelta(hours=1)) == 0
    assert store.delete_abandoned(timedelta(0)) == 1
    assert all_files(address) == [f"/{path(SHA256)}"]


def test_many_at_once_may_keep_the_same_content(store: ArtifactStore, address: str) -> None:
    failures: list[BaseException] = []

    def put() -> None:
        try:
            store.put(io.BytesIO(CONTENT))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(all_files(address)) == 1


def test_a_store_made_before_a_fork_works_in_the_child(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.put(io.BytesIO(b"parent"))
    child = os.fork()
    if child == 0:
        os._exit(0 if store.put(io.BytesIO(b"child"))[1] == 5 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.exists(hashlib.sha256(b"child").hexdigest())


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = ArtifactStore("var/artifacts")
    monkeypatch.chdir("/")
    store.put(io.BytesIO(CONTENT))
    assert (tmp_path / "var/artifacts" / path(SHA256)).is_file()


def test_a_fetched_file_goes_straight_into_the_store(store: ArtifactStore) -> None:
    with FakeServer(lambda asked: reply(CONTENT)) as peer, store.incoming() as file:
        bounds = {"max_bytes": 10_000_000, "max_seconds": 10}
        fetched = fetch(peer.url, hosts=[f"127.0.0.1:{peer.port}"], sink=file, **bounds)
        file.commit(fetched.sha256)
    with store.open(SHA256) as kept:
        assert kept.read() == CONTENT
