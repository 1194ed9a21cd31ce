"""Dataset versions: fixed lists of results. Create the next version of one, and see what each holds."""

from __future__ import annotations

from flask import abort, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.console import session
from app.console.frame import blueprint, page
from app.console.lists import download
from app.extensions import service
from pipeline.access.tokens import OPERATE
from pipeline.datasets import versions
from pipeline.datasets.filters import Unusable, parse_filters
from pipeline.datasets.splits import parse_shares
from pipeline.datasets.versions import UnknownDataset
from pipeline.operations.queries import NotFound

PAGE_VERSIONS = 50
FILTERS = ("type", "project", "batch", "label", "review")


@blueprint.get("/datasets")
def datasets() -> Response:
    """List dataset versions, newest first."""
    with service().reader.begin() as connection:
        found, next_cursor = versions.page(
            connection, limit=PAGE_VERSIONS, cursor=request.args.get("cursor") or None
        )
    fields = ("full_name", "tasks", "as_of", "filters", "counts", "split_by", "digest")
    rows = [{name: getattr(one, name) for name in fields} for one in found]
    if (answer := download(fields, rows)) is not None:
        return answer
    return page("datasets.html", "Datasets", rows=found, next_cursor=next_cursor, filters=FILTERS)


@blueprint.get("/datasets/<reference>")
def dataset(reference: str) -> Response:
    """Show one version: its filters, counts, splits and classes."""
    try:
        with service().reader.begin() as connection:
            found = versions.find(connection, reference)
    except (Unusable, UnknownDataset) as problem:
        raise NotFound(str(problem.args[0]).rstrip(".")) from None
    return page("dataset.html", f"Dataset {found.full_name}", version=found)


@blueprint.post("/datasets")
def create_dataset() -> Response:
    """Create the next version of a dataset."""
    session.require_role(OPERATE)
    chosen = {name: value for name in FILTERS if (value := request.form.get(name, "").strip())}
    shares = request.form.get("split", "").strip()
    try:
        wanted = versions.Request(
            filters=parse_filters(chosen) if chosen else None, shares=parse_shares(shares) if shares else None
        )
        made = versions.create(service(), request.form.get("name", "").strip(), wanted, session.actor())
    except Unusable as problem:
        abort(400, str(problem.args[0]))
    flash(f"Created {made.full_name} with {made.tasks} tasks.")
    return redirect(url_for("console.dataset", reference=made.full_name))
