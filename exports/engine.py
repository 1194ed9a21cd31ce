"""Write one dataset version in one format: index the images, let the format write, move everything to OUT."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from exports.croissant import FILE_NAME, croissant
from exports.export import Export, Options
from exports.format import Format
from exports.indexing import index_images
from exports.output import PRODUCT, Output, describe, open_output
from pipeline.datasets.versions import Version
from pipeline.service import Service

EXPORTER_VERSION = 1
"""Raised whenever the same version and options give other bytes."""

COLLECTIONS = gc.get_threshold()
FEW_COLLECTIONS = (100_000, 20, 20)

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


def write_export(
    service: Service,
    version: Version,
    format_: Format,
    options: Options,
    address: str,
    *,
    progress: Progress = lambda done, total: None,
    restarts: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Write the export and return its export.json. `restarts` is called where an interrupted export is replaced.

    Raises OutputRefused and MissingPackage, before anything is written; OutputFailed, and what the database raises.
    """
    format_.check_packages()
    with _fewer_collections(), open_output(address) as output:
        if output.restarts:
            restarts()
        manifest = _write(service, version, format_, options, output, progress)
        output.finish(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
    return manifest


@contextlib.contextmanager
def _fewer_collections() -> Iterator[None]:
    """Run the garbage collector less often: rows hold no cycles, and scanning them takes a third of the time."""
    gc.set_threshold(*FEW_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*COLLECTIONS)


def _write(
    service: Service,
    version: Version,
    format_: Format,
    options: Options,
    output: Output,
    progress: Progress,
) -> dict[str, Any]:
    steps = _Steps(version.tasks * (2 if format_.needs_images else 1), progress)
    export = Export(service, version, format_, options, output.stage, output.work, steps.one)
    try:
        if format_.needs_images:
            export.index = index_images(
                service,
                version,
                output.work,
                sizes=format_.needs_sizes,
                copies=options.copies,
                step=steps.one,
            )
        format_.write(export)
    finally:
        if export.index is not None:
            export.index.close()
    manifest = {
        "exporter": {"name": PRODUCT, "version": EXPORTER_VERSION},
        "format": format_.name,
        "dataset": version.full_name,
        "digest": version.digest,
        **({"filters": version.filters} if version.full_name is None else {}),
        "classes": list(version.classes),
        "options": {"images": options.images, "croissant": options.croissant},
        **export.report.as_json(),
    }
    files = describe(output.stage)
    if options.croissant:
        export.path(FILE_NAME).write_bytes(croissant(version, format_, files))
        files = describe(output.stage)
    return {**manifest, "files": files}


class _Steps:
    """Counts steps, and reports them a hundred times at the most."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total, self._done, self._progress = total, 0, progress
        self._every = max(1, total // 100)

    def one(self) -> None:
        self._done += 1
        if self._done % self._every == 0 or self._done == self._total:
            self._progress(self._done, self._total)
