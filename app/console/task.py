"""One task: its picture with the annotations drawn over it, its versions, its lineage, and the raw data."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flask import Response, abort, flash, redirect, request, url_for
from PIL import Image
from werkzeug.wrappers import Response as AnyResponse

from app.console import shapes
from app.console.attachments import addresses_of
from app.console.frame import blueprint, page
from app.extensions import service
from exports.pixels import decode
from pipeline.datasets.attachments import frames, given_size
from pipeline.datasets.images import NoImage, measure, store_sizes, stored_sizes
from pipeline.datasets.texts import text_of
from pipeline.follow_ups.lineage import lineage
from pipeline.operations.diff import TooDense, diff
from pipeline.operations.queries import NotFound, Record
from pipeline.operations.queries import responses as responses_queries
from pipeline.operations.queries.deliveries import list_deliveries
from pipeline.operations.queries.tasks import get_task

MAX_SHOWN = 400
"""Annotations on the page; the rest comes with a second request."""
MAX_LISTED = 1000
MASK_COLOR = (255, 43, 214, 110)


@blueprint.get("/tasks/<task_id>")
def task(task_id: str) -> Response:
    """Show a task."""
    with service().reader.begin() as connection:
        found = get_task(connection, task_id)
        versions = responses_queries.list_responses(connection, task_id).rows
        number = _chosen_response(found, versions)
        tree = lineage(connection, task_id, service().prices)
        deliveries = list_deliveries(connection, {"task_id": task_id}, limit=20).rows
    frame = _chosen_frame(found)
    annotations, has_more = _annotations(task_id, number, frame)
    picture = _picture(found, annotations, frame)
    return page(
        "task.html",
        f"Task {task_id}",
        task=found,
        versions=versions,
        number=number,
        response=next((one for one in versions if one["number"] == number), None),
        annotations=annotations,
        has_more=has_more,
        frame=frame,
        frame_count=_frame_count(found, annotations),
        picture=picture,
        colors=_colors(annotations),
        drawn=_drawn(task_id, number, annotations),
        above=[one for one in annotations if one["type"] == "cuboid3d"],
        shapes=shapes,
        text=_text(found, annotations),
        media=_media(found),
        tree=tree,
        deliveries=deliveries,
    )


@blueprint.get("/tasks/<task_id>/shapes")
def task_shapes(task_id: str) -> Response:
    """Send every shape of a version and frame as one SVG document, for the page that shows the first of them."""
    with service().reader.begin() as connection:
        found = get_task(connection, task_id)
    number = request.args.get("response", type=int) or found["response_number"]
    frame = request.args.get("frame", type=int)
    rows: list[Mapping[str, Any]] = []
    cursor = None
    with service().reader.begin() as connection:
        while len(rows) < 50_000:
            part = responses_queries.list_annotations(
                connection, task_id, _selection(number, frame), limit=MAX_LISTED, cursor=cursor
            )
            rows += part.rows
            if (cursor := part.next_cursor) is None:
                break
    drawn = "".join(_drawn(task_id, number, rows))
    return Response(f'<svg xmlns="http://www.w3.org/2000/svg">{drawn}</svg>', mimetype="image/svg+xml")


@blueprint.get("/tasks/<task_id>/masks/<int:number>/<int:position>.png")
def task_mask(task_id: str, number: int, position: int) -> Response:
    """Send the pixels of a mask within its bounding box, half transparent."""
    with service().reader.begin() as connection:
        rows = responses_queries.list_annotations(
            connection, task_id, {"response": number, "type": "mask"}, limit=MAX_LISTED
        ).rows
    found = next((row for row in rows if row["position"] == position), None)
    pixels = None if found is None else decode(found["geometry"])
    if found is None or pixels is None:
        abort(404, "No such mask.")
    left, top, width, height = (found["geometry"][key] for key in ("left", "top", "width", "height"))
    inside = pixels[top : top + height, left : left + width, None].astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(inside * np.array(MASK_COLOR, np.uint8)).save(content, "PNG")
    return Response(content.getvalue(), mimetype="image/png")


@blueprint.get("/tasks/<task_id>/compare")
def compare(task_id: str) -> AnyResponse:
    """Show what one version changed against another, in words and on the picture."""
    with service().reader.begin() as connection:
        found = get_task(connection, task_id)
        versions = responses_queries.list_responses(connection, task_id).rows
    numbers = sorted(one["number"] for one in versions)
    if len(numbers) < 2:
        flash("This task has only one version, so there is nothing to compare.")
        return redirect(url_for("console.task", task_id=task_id))
    new = request.args.get("new", type=int) or numbers[-1]
    old = request.args.get("old", type=int) or max((one for one in numbers if one < new), default=numbers[0])
    try:
        with service().reader.begin() as connection:
            before = responses_queries.annotation_values(connection, task_id, old)
            after = responses_queries.annotation_values(connection, task_id, new)
        changes = diff(before, after)
    except (responses_queries.TooManyAnnotations, TooDense) as error:
        abort(400, str(error))
    drawn = [
        *_marked(changes.removed, "removed"),
        *_marked([one.before for one in changes.moved], "removed"),
        *_marked([one.after for one in changes.moved], "changed"),
        *_marked([one.after for one in changes.relabeled], "changed"),
        *_marked(changes.added, "added"),
    ]
    every = [one._asdict() for one in (*before, *after)]
    return page(
        "compare.html",
        f"Versions of task {task_id}",
        task=found,
        numbers=numbers,
        old=old,
        new=new,
        changes=changes,
        drawn=drawn,
        picture=_picture(found, every, _chosen_frame(found)),
    )


def _marked(annotations: Sequence[Any], kind: str) -> list[Any]:
    drawn = (shapes.shape(one._asdict(), kind=kind) for one in annotations)
    return [one for one in drawn if one is not None]


def _chosen_response(found: Record, versions: Sequence[Mapping[str, Any]]) -> int | None:
    number = request.args.get("response", type=int)
    if number is None:
        current: int | None = found["response_number"]
        return current
    if number not in {one["number"] for one in versions}:
        raise NotFound(f"task {found['task_id']} has no response {number}")
    return number


def _is_framed(found: Record) -> bool:
    kind = found["type"] or ""
    return frames(found["type"], found["params"] or {}) is not None or kind.startswith(
        ("video", "lidar", "sensorfusion")
    )


def _chosen_frame(found: Record) -> int | None:
    """Return the frame to show; None for a task without frames."""
    if not _is_framed(found):
        return None
    frame = request.args.get("frame", default=0, type=int)
    return min(max(frame, 0), 2**31 - 1)


def _frame_count(found: Record, annotations: Sequence[Mapping[str, Any]]) -> int:
    listed = addresses_of(found) if isinstance((found["params"] or {}).get("attachments"), list) else []
    highest = max((one["frame"] or 0 for one in annotations), default=0)
    return max(len(listed), highest + 1)


def _selection(number: int | None, frame: int | None) -> dict[str, Any]:
    return {"response": number, "frame": frame}


def _annotations(
    task_id: str, number: int | None, frame: int | None
) -> tuple[Sequence[Mapping[str, Any]], bool]:
    if number is None:
        return [], False
    with service().reader.begin() as connection:
        found = responses_queries.list_annotations(
            connection, task_id, _selection(number, frame), limit=MAX_SHOWN
        )
    return found.rows, found.next_cursor is not None


def _picture(
    found: Record, annotations: Sequence[Mapping[str, Any]], frame: int | None
) -> dict[str, Any] | None:
    """Return {number, width, height, problem} of the image to draw on; None for a task that shows none."""
    params = found["params"] or {}
    addresses = addresses_of(found)
    is_image = params.get("attachment_type") in ("image", None) and not (found["type"] or "").startswith(
        ("lidar", "sensor")
    )
    number = frame or 0
    if not is_image or number >= len(addresses) or text_of(params) is not None:
        return None
    width, height, problem = _size(found, addresses[number])
    if width is None:
        width, height = shapes.size_of_shapes(annotations)
    return {"number": number, "width": width, "height": height, "problem": problem}


def _size(found: Record, address: str) -> tuple[int | None, int | None, str | None]:
    """Return width, height and why the image cannot be read."""
    with service().reader.begin() as connection:
        known = stored_sizes(connection, [address]).get(address)
    problem = None
    if known is None:
        try:
            known = measure(service(), address)
        except NoImage as reason:
            problem = str(reason)
        else:
            with service().engine.begin() as connection:
                store_sizes(connection, {address: known})
    if known is not None:
        return known.width, known.height, None
    given = given_size(found["metadata"] or {}, found["params"] or {})
    return (*given, problem) if given else (None, None, problem)


def _colors(annotations: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    labels = sorted({one["label"] or "" for one in annotations})
    return {label: position for position, label in enumerate(labels)}


def _drawn(task_id: str, number: int | None, annotations: Sequence[Mapping[str, Any]]) -> list[Any]:
    colors = _colors(annotations)
    drawn = []
    for one in annotations:
        url = None
        if one["type"] == "mask":
            url = url_for("console.task_mask", task_id=task_id, number=number, position=one["position"])
        drawn.append(shapes.shape(one, colors[one["label"] or ""], mask_url=url))
    return [one for one in drawn if one is not None]


def _text(found: Record, annotations: Sequence[Mapping[str, Any]]) -> Any:
    text = text_of(found["params"] or {})
    spans = [one for one in annotations if one["type"] == "span"]
    return None if text is None else shapes.text_parts(text, spans)


def _media(found: Record) -> str | None:
    """Return the element that plays the attachment: audio, video, or None."""
    kind = (found["params"] or {}).get("attachment_type")
    if kind == "audio" or found["type"] in ("audiotranscription", "phonecall"):
        return "audio"
    return "video" if kind == "video" else None
