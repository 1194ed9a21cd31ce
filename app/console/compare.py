"""Two versions of a task side by side: what one changed against the other, in words and on the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import abort, flash, redirect, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response

from app.console.frame import blueprint, page, sentence
from app.console.scene import Scene, read_scene, shape_of
from app.extensions import service
from pipeline.operations.diff import Diff, TooDense, diff
from pipeline.operations.queries import NotFound
from pipeline.operations.queries import responses as queries
from pipeline.operations.queries.tasks import get_task

MAX_LISTED = 200
MAX_DRAWN = 1000


@blueprint.get("/tasks/<task_id>/compare")
def compare(task_id: str) -> Response:
    """Show what the version `new` changed against `old`."""
    with service().reader.begin() as connection:
        found = get_task(connection, task_id)
        versions = queries.list_versions(connection, task_id)
    numbers = sorted(one["number"] for one in versions)
    if len(numbers) < 2:
        flash("This task has only one version, so there is nothing to compare.")
        return redirect(url_for("console.task", task_id=task_id))
    new = request.args.get("new", type=int) or numbers[-1]
    old = request.args.get("old", type=int) or max((one for one in numbers if one < new), default=numbers[0])
    for number in (old, new):
        if number not in numbers:
            raise NotFound(f"task {task_id} has no response {number}")
    changes = _changes(task_id, old, new)
    scene = read_scene(found, new)
    return page(
        "compare.html",
        f"Versions of task {task_id}",
        task=found,
        numbers=numbers,
        old=old,
        new=new,
        changes=changes,
        scene=scene,
        drawn=_drawn(task_id, old, new, scene, changes),
        max_listed=MAX_LISTED,
    )


def _changes(task_id: str, old: int, new: int) -> Diff:
    try:
        with service().reader.begin() as connection:
            before, after = queries.compared_annotations(connection, task_id, old, new)
        return diff(before, after)
    except (queries.TooManyAnnotations, TooDense) as error:
        abort(400, f"{sentence(str(error))}. Raw JSON on the page of the task downloads each version.")


def _drawn(task_id: str, old: int, new: int, scene: Scene, changes: Diff) -> list[Markup]:
    """Return the changed shapes: what was, in the color of removal; what is, in that of its change."""
    groups: tuple[tuple[int, str, Sequence[Any]], ...] = (
        (old, "removed", changes.removed),
        (old, "removed", [one.before for one in changes.moved]),
        (new, "changed", [one.after for one in changes.moved]),
        (new, "changed", [one.after for one in changes.relabeled]),
        (new, "added", changes.added),
    )
    drawn = [
        shape_of(task_id, number, scene, one._asdict(), kind)
        for number, kind, annotations in groups
        for one in annotations
        if scene.shows(one._asdict())
    ]
    return [one for one in drawn if one is not None][:MAX_DRAWN]
