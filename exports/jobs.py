"""Request exports and run them as jobs: the zip is written to a temporary folder, then stored in the artifact store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from exports.engine import write_export
from exports.export import Options
from exports.format import MissingPackage
from exports.formats import find_format
from exports.output import OutputRefused
from pipeline.artifacts.references import delete_unused
from pipeline.datasets import export_requests as requests
from pipeline.datasets import versions
from pipeline.datasets.filters import Unusable, parse_filters
from pipeline.datasets.splits import check_split_by, parse_shares
from pipeline.datasets.versions import Request, UnknownDataset, Version
from pipeline.db.errors import safe_message
from pipeline.jobs import kinds, queue
from pipeline.jobs.queue import Job, LeaseLost
from pipeline.operations.queries import NotFound, Record
from pipeline.service import Service

PROGRESS_SECONDS = 1.0
DATASET_AND_FILTERS = "A dataset version has its members already; name either a dataset or filters."


def run_export(service: Service, job: Job) -> None:
    """Write the export that the job names. What cannot succeed fails at once; anything else is attempted again."""
    export_id = UUID(job.subject)
    try:
        with service.reader.begin() as connection:
            export = requests.get_export(connection, export_id)
    except NotFound:  # deleted meanwhile
        return _finish(service, job)
    try:
        with queue.keep_lease(service.engine, job, service.settings.lease_seconds) as check:
            _write(service, job, export, check)
    except (Unusable, UnknownDataset, MissingPackage, OutputRefused) as problem:
        _finish(service, job, str(problem.args[0]))
    except LeaseLost:
        raise
    except Exception as failure:
        if job.attempts < kinds.max_attempts(kinds.EXPORT):
            raise
        _finish(service, job, safe_message(failure))
    return None


def _finish(service: Service, job: Job, reason: str | None = None) -> None:
    with service.engine.begin() as connection:
        if reason is not None:
            requests.fail(connection, UUID(job.subject), reason)
        queue.finish(connection, job)


def _write(service: Service, job: Job, export: Record, check: Callable[[], None]) -> None:
    format_ = find_format(export["format"])
    options = Options(
        images=export["options"].get("images", "link"), croissant=export["options"].get("croissant", False)
    )
    with tempfile.TemporaryDirectory(prefix="weighbridge-export-") as folder:
        path = Path(folder) / "export.zip"
        request = parse_request(export["filters"], export["options"])
        with chosen_version(service, export["dataset"], request) as version:
            progress = _progress(service, export["id"], check)
            manifest = write_export(service, version, format_, options, str(path), progress=progress)
        check()
        with path.open("rb") as file:
            sha256, size = service.store.put(file)
    report = {name: value for name, value in manifest.items() if name != "files"}
    with service.engine.begin() as connection:
        is_kept = requests.complete(connection, export["id"], sha256, size, report)
        queue.finish(connection, job)
    if not is_kept:
        delete_unused(service, sha256)


def _progress(service: Service, export_id: UUID, check: Callable[[], None]) -> Callable[[int, int], None]:
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        check()
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            with service.engine.begin() as connection:
                requests.set_progress(connection, export_id, done, total)

    return progress


def request_export(
    service: Service,
    format_name: str,
    dataset: str | None,
    filters: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    actor: str,
) -> tuple[UUID, list[UUID]]:
    """Check an export as far as it can be checked without running it, then enqueue and audit it.

    Returns the export's id, and the jobs to dispatch. Raises Unusable, UnknownDataset and MissingPackage.
    """
    if dataset is not None and filters:
        raise Unusable(DATASET_AND_FILTERS)
    find_format(format_name).check_packages()
    parse_request(filters, options)
    if dataset is not None:
        with service.reader.begin() as connection:
            dataset = versions.find(connection, dataset).full_name
    with service.engine.begin() as connection:
        chosen = dict(filters) if filters is not None and dataset is None else None
        return requests.insert_export(connection, actor, format_name, dataset, chosen, dict(options))


def parse_request(filters: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Request:
    """Return the request in the filters and options of the API. Raises Unusable."""
    split, split_by, classes = (options.get(name) for name in ("split", "split_by", "classes"))
    if isinstance(split, Mapping):
        split = ",".join(f"{name}={share}" for name, share in split.items())
    if split is not None and not isinstance(split, str):
        raise Unusable("split takes shares such as train=0.8,val=0.2, as text or as an object.")
    return Request(
        filters=parse_filters(filters) if filters is not None else None,
        shares=parse_shares(split) if split is not None else None,
        split_by=check_split_by(split_by) if split_by is not None else None,
        classes=versions.check_classes(classes) if classes is not None else None,
    )


@contextmanager
def chosen_version(service: Service, dataset: str | None, request: Request) -> Iterator[Version]:
    """Provide the version that `dataset` names, or one that is made for this export and deleted after it.

    Raises Unusable and UnknownDataset.
    """
    if dataset is None:
        version = versions.freeze(service, request)
    else:
        if request.filters is not None:
            raise Unusable(DATASET_AND_FILTERS)
        with service.reader.begin() as connection:
            named = versions.find(connection, dataset)
        if request == Request():
            yield named
            return
        version = versions.derive(service, named, request)
    try:
        yield version
    finally:
        versions.discard(service, version.id)
