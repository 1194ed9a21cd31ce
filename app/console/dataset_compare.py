"""Two versions of datasets side by side: tasks, labels, shapes and splits that differ."""

from __future__ import annotations

from flask import abort, redirect, request, url_for
from werkzeug.wrappers import Response

from app.console.frame import blueprint, page
from app.extensions import service
from pipeline.datasets import versions
from pipeline.datasets.diff import compare
from pipeline.datasets.filters import Unusable
from pipeline.datasets.versions import UnknownDataset
from pipeline.db.memory_budget import ReadTooLarge
from pipeline.operations.queries import NotFound

MAX_COMPARED = 200_000
"""Annotations of both versions that a web process compares; the command compares any number."""
MAX_LISTED = 100


@blueprint.get("/datasets/<reference>/compare")
def compare_datasets(reference: str) -> Response:
    """Show what the version `reference` has other than the version `old`."""
    old = request.args.get("old", "").strip()
    if not old:
        return redirect(url_for("console.dataset", reference=reference))
    try:
        with service().reader.begin() as connection:
            found = [versions.find(connection, name) for name in (old, reference)]
        if sum(one.counts["annotations"]["total"] for one in found) > MAX_COMPARED:
            raise ReadTooLarge
        changes = compare(service().reader, old, reference)
    except ReadTooLarge:
        abort(
            400,
            f"These versions are too large for a page. Run `weighbridge datasets diff {old} {reference}`.",
        )
    except (Unusable, UnknownDataset) as problem:
        raise NotFound(str(problem.args[0]).rstrip(".")) from None
    sections = [
        (f"{what.capitalize()} {how}", rows) for what, hows in changes.items() for how, rows in hows.items()
    ]
    return page(
        "dataset_compare.html",
        f"{found[0].full_name} and {found[1].full_name}",
        sections=sections,
        max_listed=MAX_LISTED,
        back=url_for("console.dataset", reference=reference),
    )
