"""Fill the image index of an export: which images its tasks show, their sizes, and with --images copy their bytes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exports.export import copy_path
from exports.image_index import ImageIndex, Row
from pipeline.datasets.attachments import given_size, images
from pipeline.datasets.images import (
    HostDown,
    NoImage,
    Size,
    batches,
    copy,
    measure,
    store_sizes,
    stored_sizes,
)
from pipeline.datasets.records import mask_sizes, read_tasks
from pipeline.datasets.versions import Version
from pipeline.service import Service

FETCH_THREADS = 8
MAX_HOST_FAILURES = 5
"""A host that did not answer this often in a row is not asked again during the export."""


class Hosts:
    """The hosts that did not answer, so that not every one of thousands of images waits for its time-out."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def is_down(self, address: str) -> bool:
        """Return whether the host of the address did not answer before."""
        return self._failures.get(self._host(address), 0) >= MAX_HOST_FAILURES

    def record(self, address: str, answered: bool) -> None:
        """Count a failure, or forget those before."""
        host = self._host(address)
        self._failures[host] = 0 if answered else self._failures.get(host, 0) + 1

    @staticmethod
    def _host(address: str) -> str:
        return address.partition("://")[2].partition("/")[0]


def index_images(
    service: Service,
    version: Version,
    work: Path,
    *,
    sizes: bool,
    copies: bool,
    step: Callable[[], None],
) -> ImageIndex:
    """Return the images of a version. Where `sizes`, each is measured unless it was before; with `copies` each is fetched whole."""
    index = ImageIndex(work / "images.sqlite")
    for batch in batches(read_tasks(service.reader, version.id, annotations=False)):
        with service.reader.begin() as connection:
            by_mask = mask_sizes(connection, [task.response_id for task in batch]) if sizes else {}
        for task in batch:
            step()
            if task.is_deleted:
                continue
            given = by_mask.get(task.response_id) or given_size(task.metadata, task.params)
            for address in images(task.type, task.params):
                index.add(address, task.split, given)
    if sizes or copies:
        hosts = Hosts()
        for rows in batches(index):
            _complete(service, index, work, rows, hosts, copies=copies)
    return index


def _complete(
    service: Service, index: ImageIndex, work: Path, rows: list[Row], hosts: Hosts, *, copies: bool
) -> None:
    with service.reader.begin() as connection:
        sizes = stored_sizes(connection, [row.address for row in rows])
    new: dict[str, Size] = {}
    unread = [row for row in rows if copies or row.address not in sizes]
    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        results = pool.map(lambda row: _measure_or_copy(service, work, row, hosts, copies=copies), unread)
        for row, (size, problem) in zip(unread, results, strict=True):
            if size is not None:
                new[row.address] = size
            if problem is not None:
                index.set_problem(row.id, problem)
    if fresh := {address: size for address, size in new.items() if address not in sizes}:
        with service.engine.begin() as connection:
            store_sizes(connection, fresh)
    for row in rows:
        size = new.get(row.address) or sizes.get(row.address)
        if size is not None:
            index.set_size(row.id, size.width, size.height, size.media_type, size.orientation != 1)
        elif (given := index.given_size(row.id)) is not None:
            index.set_size(row.id, *given, None, turned=False)


def _measure_or_copy(
    service: Service, work: Path, row: Row, hosts: Hosts, *, copies: bool
) -> tuple[Size | None, str | None]:
    """Return the size of the image, or why it cannot be read."""
    if hosts.is_down(row.address):
        return None, "its host does not answer"
    try:
        size = _fetch(service, work, row, copies=copies)
    except NoImage as reason:
        hosts.record(row.address, not isinstance(reason, HostDown))
        return None, str(reason)
    hosts.record(row.address, True)
    return size, None


def _fetch(service: Service, work: Path, row: Row, *, copies: bool) -> Size | None:
    if not copies:
        return measure(service, row.address)
    target = copy_path(work, row.id)
    target.parent.mkdir(parents=True, exist_ok=True)
    return copy(service, row.address, target)
