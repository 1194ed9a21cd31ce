"""One task: its picture with the annotations drawn over it, its versions, its lineage, and the raw data."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from flask import Response, abort, render_template, request
from PIL import Image, ImageColor

from app.console.attachments import MAX_POINT_FILE_BYTES, copy_of
from app.console.colors import PALETTE, color_of, label_places
from app.console.conversations import threads_of
from app.console.frame import blueprint, page
from app.console.lists import Filter, Listing
from app.console.scene import COPIES, MAX_ROWS, draw, draw_all, pages_of_annotations, read_scene
from app.console.shapes import key_of
from app.extensions import service
from exports.pixels import decode, pixel_count
from pipeline.datasets.points import points_of, segments_of
from pipeline.db.json import dumps
from pipeline.db.memory_budget import ReadTooLarge, charge, temporary_reads
from pipeline.db.streams import coalesced
from pipeline.follow_ups.lineage import lineage
from pipeline.operations.queries import NotFound, Page, Record
from pipeline.operations.queries import responses as responses_queries
from pipeline.operations.queries.deliveries import list_deliveries
from pipeline.operations.queries.tasks import get_task, stream_params
from scale.task_types import task_type

MAX_INLINE_CHARACTERS = 8_000
"""Raw data up to this size is on the page; more of it is one click away."""
MAX_RAW_CHARACTERS = 100_000
MAX_LINEAGE_ROWS = 100
MAX_SEGMENTS = 5000
MASK_OPACITY = 110


@blueprint.get("/tasks/<task_id>")
def task(task_id: str) -> Response:
    """Show a task."""
    with service().reader.begin() as connection:
        found = get_task(connection, task_id)
        versions = responses_queries.list_versions(connection, task_id)
        number = _chosen_response(found, versions)
        response = (
            responses_queries.small_response(connection, task_id, number, MAX_INLINE_CHARACTERS)
            if number is not None
            else None
        )
        tree = lineage(connection, task_id, service().prices)
        deliveries = list_deliveries(connection, {"task_id": task_id}, limit=20).rows
    scene = read_scene(found, number)
    draw(task_id, number, scene, scene.annotations)
    threads = threads_of(found["answer"])
    is_raw_small = (
        (response is not None or number is None)
        and "params" not in found["left_out"]
        and len(dumps(found["params"])) <= MAX_INLINE_CHARACTERS
    )
    return page(
        "task.html",
        f"Task {task_id}",
        task=found,
        versions=versions,
        number=number,
        response=response,
        scene=scene,
        rows=scene.annotations[:MAX_ROWS],
        undrawn={key_of(one) for one in scene.undrawn},
        labels=_distinct(scene.annotations, "label"),
        types=_distinct(scene.annotations, "type"),
        has_more_rows=scene.has_more or len(scene.annotations) > MAX_ROWS,
        is_raw_small=is_raw_small,
        media=_media(found),
        is_answer=task_type(found["type"]).result_form == "answer",
        threads=threads,
        rest={key: one for key, one in found["answer"].items() if key != "threads"}
        if threads
        else found["answer"],
        tree=_tree(tree, task_id) if tree else [],
        deliveries=deliveries,
    )


blueprint.add_app_template_filter(key_of, "annotation_key")


def _distinct(annotations: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return sorted({one[name] or "" for one in annotations})


@blueprint.get("/tasks/<task_id>/shapes")
def task_shapes(task_id: str) -> Response:
    """Send every shape of a version and frame as one SVG document, for the page that shows the first of them."""
    found, number, frame = _selected(task_id)
    shapes = draw_all(task_id, number, read_scene(found, number), frame)
    content = f'<svg xmlns="http://www.w3.org/2000/svg">{"".join(shapes)}</svg>'
    return Response(content, mimetype="image/svg+xml")


@blueprint.get("/tasks/<task_id>/rows")
def task_rows(task_id: str) -> Response:
    """Send a table row for each annotation of a version and frame, for the page that shows the first of them."""
    found, number, frame = _selected(task_id)
    scene = read_scene(found, number)
    parts: list[str] = []
    with suppress(ReadTooLarge):  # the rows that fit
        for annotations in pages_of_annotations(task_id, number, frame):
            rows = [one for one in annotations if scene.shows(one)]
            has_frame = frame is not None
            part = render_template("_annotation_rows.html", rows=rows, undrawn=(), has_frame=has_frame)
            charge(COPIES * len(part))
            parts.append(part)
    return Response("".join(parts))


def _selected(task_id: str) -> tuple[Record, int | None, int | None]:
    """Return the task, and the version and frame that the address names."""
    with service().reader.begin() as connection:
        found = get_task(connection, task_id)
        responses_queries.refuse_purged(connection, task_id)
    number = request.args.get("response", type=int) or found["response_number"]
    return found, number, request.args.get("frame", type=int)


def _annotations_listing(task_id: str) -> Listing:
    def read(connection: Any, filters: Mapping[str, Any], cursor: str | None) -> Page:
        numbers = {name: request.args.get(name, type=int) for name in ("response", "frame")}
        return responses_queries.list_annotations(
            connection, task_id, {**filters, **numbers}, limit=MAX_ROWS, cursor=cursor
        )

    fields = ("position", "uuid", "type", "label", "frame", "attributes", "geometry")
    filters = (Filter("type", "Type"), Filter("label", "Label"))
    return Listing("annotations.html", f"Annotations of task {task_id}", filters, fields, read)


@blueprint.get("/tasks/<task_id>/annotations")
def task_annotations(task_id: str) -> Response:
    """List the annotations of a version, page by page."""
    return _annotations_listing(task_id).respond(task_id=task_id, undrawn=(), has_frame=True)


@blueprint.get("/tasks/<task_id>/raw")
def task_raw(task_id: str) -> Response:
    """Show the request and a response as they are stored; `format=json` downloads them whole."""
    reader = service().reader
    with reader.begin() as connection:
        found = get_task(connection, task_id)
        number = request.args.get("response", type=int) or found["response_number"]
        version_id = None if number is None else responses_queries.response_id(connection, task_id, number)
    params = stream_params(reader, task_id)
    response = (
        iter((b"null",)) if version_id is None else responses_queries.stream_response(reader, version_id)
    )
    if request.args.get("format") == "json":
        whole = chain((b'{"request": ',), params, (b', "response": ',), response, (b"}",))
        return Response(coalesced(whole), content_type="application/json")
    return page(
        "task_raw.html",
        f"Raw data of task {task_id}",
        task=found,
        number=number,
        parts=[
            (name, text[:MAX_RAW_CHARACTERS], len(text) > MAX_RAW_CHARACTERS)
            for name, text in (
                ("Raw request", _start(params)),
                ("Raw response", _start(response)),
            )
        ],
    )


def _start(pieces: Iterator[bytes]) -> str:
    return next(pieces)[: 4 * (MAX_RAW_CHARACTERS + 1)].decode("utf-8", "ignore")


@blueprint.get("/tasks/<task_id>/masks/<int:number>/<int:position>.png")
def task_mask(task_id: str, number: int, position: int) -> Response:
    """Send the pixels of a mask within its bounding box, half transparent."""
    with service().reader.begin() as connection:
        rows = responses_queries.list_annotations(
            connection, task_id, {"response": number, "type": "mask", "position": position}, limit=1
        ).rows
    geometry = (rows[0]["geometry"] if rows else None) or {}
    charge(2 * pixel_count(geometry))  # the mask, and its picture
    pixels = decode(geometry)
    if pixels is None:
        abort(404, "No such mask.")
    left, top, width, height = (geometry[key] for key in ("left", "top", "width", "height"))
    color = PALETTE[request.args.get("color", 0, type=int) % len(PALETTE)]
    shown = Image.fromarray(pixels[top : top + height, left : left + width])
    shown.putpalette([0, 0, 0, *ImageColor.getrgb(color)])
    content = io.BytesIO()
    shown.save(content, "PNG", transparency=bytes((0, MASK_OPACITY)))
    response = Response(content.getvalue(), mimetype="image/png")
    response.headers["Cache-Control"] = "private, max-age=3600"
    return response


@blueprint.get("/tasks/<task_id>/points/<int:number>")
def task_points(task_id: str, number: int) -> Response:
    """Send the points of a lidar frame, at most MAX_POINTS of them.

    32-bit floats: x, y and z of each in metres, and the color of its object by a point segmentation, -1 for none.
    """
    path, _ = copy_of(task_id, number)
    if path.stat().st_size > MAX_POINT_FILE_BYTES:
        abort(413, "The file of this frame is too large to be drawn.")
    found, response, _ = _selected(task_id)
    try:
        colors = _point_colors(found, response, number)
        return Response(points_of(path.read_bytes(), colors), mimetype="application/octet-stream")
    except ReadTooLarge:
        abort(413, "The file of this frame is too large to be drawn.")


def _point_colors(found: Record, number: int | None, frame: int) -> list[int]:
    """Return the color of each point of a frame by the point segmentation of the current version, or an empty list."""
    file = next((one for one in found["artifacts"] if one["role"] == "point_segmentations"), None)
    if file is None or number != found["response_number"] or file["state"] != "stored":
        return []
    if file["size_bytes"] > MAX_POINT_FILE_BYTES:
        return []
    with service().reader.begin() as connection:
        segments = responses_queries.list_annotations(
            connection, found["task_id"], {"response": number, "type": "segment3d"}, limit=MAX_SEGMENTS
        ).rows
    places = label_places(found["params"] or {})
    color_by_index = {
        one["geometry"].get("index"): color_of(one["label"], places) for one in segments if one["geometry"]
    }
    with service().store.open(file["sha256"]) as content, temporary_reads():
        return [color_by_index.get(index, -1) for index in segments_of(content.read(), frame)]


def _chosen_response(found: Record, versions: Sequence[Mapping[str, Any]]) -> int | None:
    number = request.args.get("response", type=int)
    if number is None:
        current: int | None = found["response_number"]
        return current
    if number not in {one["number"] for one in versions}:
        raise NotFound(f"task {found['task_id']} has no response {number}")
    return number


def _media(found: Record) -> str | None:
    """Return the element that plays the attachment, if it is not drawn on: audio, or None."""
    kind = (found["params"] or {}).get("attachment_type")
    return "audio" if kind == "audio" or found["type"] in ("audiotranscription", "phonecall") else None


def _tree(tree: Mapping[str, Any], task_id: str) -> list[dict[str, Any]]:
    """Return the lineage as lines: ancestors, the task, and its descendants, each with its depth and what created it."""
    lines = [
        {
            "depth": depth,
            "task_id": one["task_id"],
            "type": one["type"],
            "state": one["status"],
            "by": one["source"],
        }
        for depth, one in enumerate(tree["ancestors"])
    ]
    below: dict[str, list[Mapping[str, Any]]] = {}
    for one in tree["descendants"][:MAX_LINEAGE_ROWS]:
        below.setdefault(one["source_task_id"], []).append(one)
    lines += _below(below, task_id, len(lines))
    return lines if len(lines) > 1 else []


def _below(
    below: Mapping[str, Sequence[Mapping[str, Any]]], task_id: str, depth: int
) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for one in below.get(task_id, ()):
        state = one["task_status"] or one["state"]
        lines.append(
            {"depth": depth, "task_id": one["task_id"], "type": one["task_type"], "state": state, "by": one}
        )
        if one["task_id"] is not None and one["task_id"] != task_id:
            lines += _below(below, one["task_id"], depth + 1)
    return lines
