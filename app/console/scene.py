"""What of a task's result is drawn, and on what: an image, a video, a page, a text, or the ground seen from above."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flask import request, url_for
from markupsafe import Markup

from app.console import shapes
from app.console.attachments import addresses_of, camera_address
from app.console.colors import PALETTE, color_of, label_places
from app.extensions import service
from pipeline.datasets.attachment_cache import cached
from pipeline.datasets.attachments import frames, given_size
from pipeline.datasets.images import NoImage, measure, store_sizes, stored_sizes
from pipeline.datasets.texts import text_of
from pipeline.db.memory_budget import ReadTooLarge, charge, temporary_reads
from pipeline.operations.queries import Record
from pipeline.operations.queries import responses as queries
from scale.frame_sources import frame_source

PICTURE, VIDEO, ABOVE, CAMERA, PAGE, TEXT = "picture", "video", "above", "camera", "page", "text"
MAX_READ = 1000
"""Annotations that are read for the page itself; the rest comes with a second request."""
MAX_ROWS = 200
MAX_SHAPE_CHARACTERS = 50_000
MAX_DRAWN = 50_000
MAX_PLACE = 2**31 - 1
MAX_TEXT_BYTES = 60_000
COPIES = 3
"""Of a text that is sent: its parts, the whole, and its bytes."""
FROM_ABOVE = ("lidar", "sensorfusion")
ON_CAMERAS = "lidarlinking"

Rows = Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class Scene:
    """One frame, page or picture with its annotations."""

    kind: str | None
    """PICTURE, VIDEO, ABOVE, CAMERA, PAGE or TEXT; None where only a table is shown."""
    place_name: str | None = None
    """frame or page; None where there is just one."""
    place: int | None = None
    places: int = 1
    annotations: Rows = ()
    has_more: bool = False
    """Whether there are annotations that were not read."""
    cameras: Sequence[int] = ()
    """Those of the frame whose images have annotations."""
    camera: int | None = None
    number: int | None = None
    """The attachment to show; None for none."""
    width: float = 0
    height: float = 0
    left: float = 0
    top: float = 0
    time: float | None = None
    """Seconds from the start of the video."""
    problem: str | None = None
    """Why the attachment cannot be shown."""
    drawn: list[Markup] = field(default_factory=list)
    text: Markup | None = None
    undrawn: Rows = ()
    """Annotations without a shape: they are shown by their rows alone."""
    cuboids: list[dict[str, Any]] | None = None
    """Lidar cuboids of the frame for the drawing in 3D: {position, dimensions, yaw}; None where it is no lidar scene."""
    is_cut: bool = False
    """Whether shapes are left to the second request."""
    label_places: Mapping[str, int] = field(default_factory=dict)
    """The place of each label in the request."""

    palette: ClassVar = PALETTE

    def color_of(self, label: str | None) -> int:
        """Return the color of a label: the number of its class in the style sheet."""
        return color_of(label, self.label_places)

    @property
    def is_empty(self) -> bool:
        """Return whether there is neither an attachment that can be shown nor a shape."""
        is_attachment_shown = self.kind != ABOVE and self.number is not None and self.problem is None
        return not (is_attachment_shown or self.drawn or self.is_cut)

    def shows(self, annotation: Mapping[str, Any]) -> bool:
        """Return whether an annotation is on the frame, the page or the camera's image that is shown."""
        if self.kind == PAGE:
            return page_of(annotation) in (None, self.place)
        if self.kind == CAMERA and camera_of(annotation) not in (None, self.camera):
            return False
        return self.place_name is None or annotation["frame"] in (None, self.place)

    @property
    def view_box(self) -> str:
        """Return the viewBox of the drawing: pixels of the original image, or metres seen from above."""
        return f"{self.left:g} {self.top:g} {self.width:.12g} {self.height:.12g}"


def read_scene(found: Record, number: int | None) -> Scene:
    """Return the scene that the address asks for, of version `number`, with nothing drawn yet."""
    scene = _begin(found, number)
    scene.label_places = label_places(found["params"] or {})
    if number is not None and found["purged_at"] is None:
        _read(found, number, scene)
    _place(found, scene)
    return scene


def _begin(found: Record, number: int | None) -> Scene:
    kind, params = found["type"] or "", found["params"] or {}
    if kind == ON_CAMERAS:
        return _at(Scene(CAMERA), "frame")
    if kind.startswith(FROM_ABOVE):
        return _at(Scene(ABOVE), "frame")
    if _is_document(found):
        return _at(Scene(PAGE), "page")
    if params.get("attachment_type") == "video" or kind.startswith("videoplayback"):
        return _at(Scene(VIDEO), "frame")
    if frames(found["type"], params) is not None or kind.startswith("video"):
        return _at(Scene(PICTURE), "frame")
    if params.get("attachment_type") == "text" or text_of(params) is not None:
        return Scene(TEXT)
    is_image = params.get("attachment_type") == "image" or (
        params.get("attachment_type") is None and any(addresses_of(found))
    )
    return Scene(PICTURE if is_image else None)


def _is_document(found: Record) -> bool:
    answer = found["answer"]
    return (found["type"] or "").startswith("document") or (
        isinstance(answer, dict) and isinstance(answer.get("document_pages"), list)
    )


def _at(scene: Scene, name: str) -> Scene:
    scene.place_name = name
    scene.place = min(max(request.args.get(name, default=0, type=int), 0), MAX_PLACE)
    return scene


def page_of(annotation: Mapping[str, Any]) -> int | None:
    """Return the page of a document that an annotation is on, from 0."""
    page = annotation["geometry"].get("page") if isinstance(annotation["geometry"], dict) else None
    return page if type(page) is int else annotation["frame"]


def camera_of(annotation: Mapping[str, Any]) -> int | None:
    """Return the camera whose image an annotation is on. Source: docs, "LiDAR Linking", callback format."""
    camera = annotation["geometry"].get("camera_used") if isinstance(annotation["geometry"], dict) else None
    return camera if type(camera) is int else None


def _read(found: Record, number: int, scene: Scene) -> None:
    frame = scene.place if scene.place_name == "frame" else None
    with service().reader.begin() as connection:
        read = queries.list_annotations(
            connection, found["task_id"], {"response": number, "on_frame": frame}, limit=MAX_READ
        )
        last = queries.last_frame(connection, found["task_id"], number) if scene.place_name == "frame" else 0
    scene.annotations, scene.has_more = read.rows, read.next_cursor is not None
    scene.places = max(1, (last or 0) + 1)
    if scene.place_name == "page":
        scene.places = max(1, max((page_of(one) or 0 for one in read.rows), default=0) + 1)
    if scene.kind == CAMERA:
        scene.cameras = sorted({camera for one in read.rows if (camera := camera_of(one)) is not None})
        asked = request.args.get("camera", type=int)
        scene.camera = asked if asked in scene.cameras else next(iter(scene.cameras), None)
    scene.annotations = [one for one in read.rows if scene.shows(one)]


def _place(found: Record, scene: Scene) -> None:
    """Set the attachment and the size of what is drawn on."""
    params, addresses = found["params"] or {}, addresses_of(found)
    listed = params.get("attachments")
    if scene.place_name is not None and isinstance(listed, list):
        scene.places = max(scene.places, len(listed))
    if scene.kind == ABOVE:
        scene.left, scene.top, scene.width, scene.height = shapes.view_from_above(scene.annotations)
        scene.number = scene.place if (scene.place or 0) < len(addresses) else None
        scene.cuboids = shapes.cuboids(scene.annotations, scene.color_of)
    elif scene.kind == CAMERA:
        _place_camera(found, scene)
    elif scene.kind == VIDEO:
        _place_video(found, scene, addresses)
    elif scene.kind in (PICTURE, PAGE):
        _place_picture(found, scene, addresses)
    elif scene.kind == TEXT:
        _place_text(params, scene, addresses)


def _place_video(found: Record, scene: Scene, addresses: Sequence[str | None]) -> None:
    params = found["params"] or {}
    scene.number = len(addresses) - 1 if addresses and addresses[-1] else None
    times = (one.get("time") for one in scene.annotations)
    scene.time = next((time for time in times if time is not None), None)
    if scene.time is None and scene.place is not None:
        scene.time = frame_source(params, scene.place, found["type"]).time
    given = given_size(found["metadata"] or {}, params)
    scene.width, scene.height = given or shapes.size_of_shapes(scene.annotations)


def _place_picture(found: Record, scene: Scene, addresses: Sequence[str | None]) -> None:
    number = scene.place or 0
    address = addresses[number] if number < len(addresses) else None
    size = _page_size(found, number)
    if address is not None and not (size and address.partition("?")[0].lower().endswith(".pdf")):
        scene.number = number
        measured, scene.problem = _size(found, address)
        size = measured or size
    scene.width, scene.height = size or shapes.size_of_shapes(scene.annotations)


def _place_camera(found: Record, scene: Scene) -> None:
    size = None
    if scene.camera is not None and scene.place is not None:
        try:
            if (address := camera_address(found, scene.place, scene.camera)) is not None:
                scene.number = scene.camera
                size, scene.problem = _size(found, address)
        except NoImage as reason:
            scene.problem = str(reason)
    scene.width, scene.height = size or shapes.size_of_shapes(scene.annotations)


def _page_size(found: Record, number: int) -> tuple[float, float] | None:
    """Return the size that the answer gives for a page of a document."""
    answer = found["answer"]
    pages = answer.get("document_pages") if isinstance(answer, dict) else None
    page = pages[number] if isinstance(pages, list) and number < len(pages) else None
    if not isinstance(page, dict):
        return None
    width, height = page.get("width"), page.get("height")
    if not isinstance(width, int | float) or not isinstance(height, int | float):
        return None
    return (width, height) if 0 < width < 1e6 and 0 < height < 1e6 else None


def _size(found: Record, address: str) -> tuple[tuple[int, int] | None, str | None]:
    """Return width and height of the image, and why it cannot be read."""
    with service().reader.begin() as connection:
        known = stored_sizes(connection, [address]).get(address)
    if known is None:
        try:
            known = measure(service(), address)
        except NoImage as reason:
            return given_size(found["metadata"] or {}, found["params"] or {}), str(reason)
        with service().engine.begin() as connection:
            store_sizes(connection, {address: known})
    return (known.width, known.height), None


def _place_text(params: Mapping[str, Any], scene: Scene, addresses: Sequence[str | None]) -> None:
    text = text_of(params)
    if text is None and addresses and addresses[0] is not None:
        try:
            with cached(service(), addresses[0]).open("rb") as file:
                text = file.read(MAX_TEXT_BYTES).decode("utf-8", "replace")
        except NoImage as reason:
            scene.problem = str(reason)
    if text is not None:
        spans = [one for one in scene.annotations if one["type"] == "span"]
        scene.text, scene.undrawn = shapes.text_parts(text[:MAX_TEXT_BYTES], spans, scene.color_of)


def draw(task_id: str, number: int | None, scene: Scene, annotations: Rows) -> None:
    """Set the shapes, at most MAX_SHAPE_CHARACTERS of them, and the annotations that have none."""
    if scene.kind == TEXT:
        scene.undrawn = [
            *scene.undrawn,
            *(one for one in annotations if one["type"] != "span" or scene.text is None),
        ]
        return
    undrawn, written = [], 0
    for one in shapes.largest_first(annotations):
        shape = shape_of(task_id, number, scene, one) if scene.kind else None
        if shape is None:
            undrawn.append(one)
            continue
        written += len(shape)
        if written > MAX_SHAPE_CHARACTERS:
            scene.is_cut = True
            continue
        scene.drawn.append(shape)
    scene.undrawn = undrawn
    scene.is_cut = scene.is_cut or scene.has_more


def draw_all(task_id: str, number: int | None, scene: Scene, frame: int | None) -> list[Markup]:
    """Return the shapes of a version and frame, of at most MAX_DRAWN annotations, the largest first: as many as the memory allows."""
    drawn: list[tuple[float, Markup]] = []
    if scene.kind in (None, TEXT):
        return []
    with suppress(ReadTooLarge):
        for annotations in pages_of_annotations(task_id, number, frame):
            for one in annotations:
                if scene.shows(one) and (shape := shape_of(task_id, number, scene, one)) is not None:
                    charge(COPIES * len(shape))
                    drawn.append((shapes.extent(one), shape))
    drawn.sort(key=lambda item: -item[0])
    return [shape for _, shape in drawn]


def shape_of(
    task_id: str, number: int | None, scene: Scene, one: Mapping[str, Any], kind: str = ""
) -> Markup | None:
    """Return the SVG element of an annotation in a scene; None if it has no place in it."""
    color = scene.color_of(one["label"])
    if scene.kind == ABOVE:
        return shapes.from_above(one, color, kind)
    url = None
    if one["type"] == "mask" and number is not None:
        place = {"task_id": task_id, "number": number, "position": one["position"]}
        url = url_for("console.task_mask", **place, color=color)
    radius = shapes.POINT_RADIUS * max(1.0, scene.width / 1000)
    return shapes.shape(one, color, kind, url, radius)


def pages_of_annotations(task_id: str, number: int | None, frame: int | None) -> Iterator[Rows]:
    """Yield the annotations of a version and frame in pages, at most MAX_DRAWN of them. One page is in memory at a time."""
    cursor, count = None, 0
    while number is not None and count < MAX_DRAWN:
        with temporary_reads(), service().reader.begin() as connection:
            found = queries.list_annotations(
                connection,
                task_id,
                {"response": number, "on_frame": frame},
                limit=MAX_READ * 5,
                cursor=cursor,
            )
        yield found.rows
        count, cursor = count + len(found.rows), found.next_cursor
        if cursor is None:
            return
