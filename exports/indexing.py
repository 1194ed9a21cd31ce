"""Fills the image index of an export: which images its tasks show, their sizes, and with --images copy their bytes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exports.export import copy_path
from exports.image_index import ImageIndex, Row
from pipeline.datasets.attachments import given_size, images
from pipeline.datasets.images import NoImage, Size, batches, copy, measure, store_sizes, stored_sizes
from pipeline.datasets.records import mask_sizes, read_tasks
from pipeline.datasets.versions import Version
from pipeline.service import Service

FETCH_THREADS = 8


def index_images(
    service: Service,
    version: Version,
    work: Path,
    *,
    sizes: bool,
    copies: bool,
    step: Callable[[], None],
) -> ImageIndex:
    """The images of a version. Where `sizes`, each is measured unless it was before; with `copies` each is fetched whole."""
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
        for rows in batches(index):
            _complete(service, index, work, rows, copies=copies)
    return index


def _complete(service: Service, index: ImageIndex, work: Path, rows: list[Row], *, copies: bool) -> None:
    with service.reader.begin() as connection:
        sizes = stored_sizes(connection, [row.address for row in rows])
    new: dict[str, Size] = {}
    wanted = [row for row in rows if copies or row.address not in sizes]
    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        brought = pool.map(lambda row: _bring(service, work, row, copies=copies), wanted)
        for row, (size, problem) in zip(wanted, brought, strict=True):
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


def _bring(service: Service, work: Path, row: Row, *, copies: bool) -> tuple[Size | None, str | None]:
    """(size, why the image cannot be had)."""
    try:
        if not copies:
            return measure(service, row.address), None
        target = copy_path(work, row.id)
        target.parent.mkdir(parents=True, exist_ok=True)
        return copy(service, row.address, target), None
    except NoImage as reason:
        return None, str(reason)
