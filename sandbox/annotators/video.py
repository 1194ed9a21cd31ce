"""Make responses for video: objects followed over frames, in the files of the video task types."""

import math
from typing import Any, NamedTuple

from sandbox.annotators.assignment import Assignment
from sandbox.annotators.attributes import link_attributes
from sandbox.annotators.images import (
    adopt_prelabel,
    annotation_limits,
    annotation_specs,
    draw_annotation,
    drawing_canvas,
    image_attributes,
    layer_annotations,
)
from sandbox.annotators.labels import label_names
from sandbox.annotators.prelabels import read_prelabels
from sandbox.annotators.shapes import Region, nudge_shape
from sandbox.annotators.values import as_dict, as_list, as_number, dicts_in

# Where the request of one of the older types says no geometries: the shape that its name says.
GEOMETRY_OF_TYPE = {
    "videoboxannotation": "box",
    "videopolygonannotation": "polygon",
    "videocuboidannotation": "cuboid",
    "laneannotation": "line",
}
ASSUMED_SECONDS = 8
MAX_FRAMES = 2000


class Track(NamedTuple):
    """Hold one object: its annotation by frame (position in the list of frames), always with the same uuid and label."""

    kind: str
    by_frame: dict[int, dict[str, Any]]


def frame_count(params: dict[str, Any]) -> int:
    """Return the number of attachments; for a video file duration_time times frame_rate (default 1 per second)."""
    frames = as_list(params.get("attachments"))
    if frames and params.get("attachment_type") != "video":
        return len(frames)
    if params.get("attachment_type") == "image":
        return 1
    rate = as_number(params.get("frame_rate"), 1) or 1
    seconds = as_number(params.get("duration_time"), ASSUMED_SECONDS) or ASSUMED_SECONDS
    return max(1, min(MAX_FRAMES, math.ceil(abs(rate * seconds))))


def _frame_canvas(assignment: Assignment, existing: list[dict[str, Any]]) -> Region:
    """Return the canvas of the first frame's image; a video file is not opened to find its size."""
    frames = as_list(assignment.params.get("attachments"))
    return drawing_canvas(
        assignment, frames[0] if frames else assignment.params.get("attachment"), existing=existing
    )


def make_tracks(assignment: Assignment, frames: int, *, key: str) -> list[Track]:
    """Make new tracks: each object is visible in a run of frames and moves within the canvas.

    Objects in the layers of the first frame are followed first.
    """
    params, rng = assignment.params, assignment.rng
    specs = annotation_specs(params, None)
    if not specs and assignment.type in GEOMETRY_OF_TYPE:
        specs = annotation_specs(params, GEOMETRY_OF_TYPE[assignment.type])
    if not specs:
        return []
    layers = as_list(assignment.read(params.get("layers")))
    drawn = layer_annotations(layers[0]) if layers else []
    canvas = _frame_canvas(assignment, drawn)
    minimum, maximum = annotation_limits(params)
    count = min(max(rng.randint(2, 4), len(specs), len(drawn), minimum), maximum)
    tracks = []
    for position in range(count):
        spec = specs[position % len(specs)]
        guide = drawn[position] if position < len(drawn) else None
        first = 0 if guide or not position else rng.randrange(max(1, frames // 3))
        last = max(first, frames - 1 - rng.randrange(max(1, frames // 3)))
        shape = draw_annotation(assignment, spec, canvas, key=key, guide=guide)
        by_frame = {first: shape}
        for frame in range(first + 1, last + 1):
            shape = nudge_shape(shape, canvas, rng)
            by_frame[frame] = shape
        tracks.append(Track(spec.kind, by_frame))
    return tracks


def make_video_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations.url`: a JSON array with `{annotations}` for each frame, and `events.url` for events_to_annotate.

    The older video types and federal2dvideoannotation get the same form, a guess: only their names are known. Source: docs,
    "Video Annotation", callback format.
    """
    return _make_files_response(assignment, _annotate_frames(assignment))


def _annotate_frames(assignment: Assignment) -> list[dict[str, Any]]:
    params = assignment.params
    start = read_prelabels(params)
    given = [
        dicts_in(as_dict(frame).get("annotations")) for frame in as_list(assignment.read(start.annotations))
    ]
    count = max(frame_count(params), len(given))
    frames: list[dict[str, Any]] = [{"annotations": []} for _ in range(count)]
    canvas = _frame_canvas(assignment, [annotation for annotations in given for annotation in annotations])
    for frame, annotations in zip(frames, given, strict=False):
        frame["annotations"] = [
            adopt_prelabel(assignment, a, canvas, "type", start.editable) for a in annotations
        ]
    if start.more and not given:
        for track in make_tracks(assignment, count, key="type"):
            for position, annotation in track.by_frame.items():
                frames[position]["annotations"].append(annotation)
        for frame in frames:
            link_attributes(frame["annotations"], params.get("annotation_attributes"), assignment.rng)
    if of_image := image_attributes(assignment, start.global_attributes):
        frames = [{**frame, "global_attributes": of_image} for frame in frames]
    return frames


def _make_files_response(assignment: Assignment, content: Any) -> dict[str, Any]:
    response: dict[str, Any] = {"annotations": {"url": assignment.put_json(content)}}
    names = label_names(assignment.params.get("events_to_annotate"))
    if names or assignment.type == "videoplaybackannotation":
        response["events"] = {"url": assignment.put_json({"events": _make_events(assignment, names)})}
    return response


def _make_events(assignment: Assignment, names: list[str]) -> list[dict[str, Any]]:
    """Make events in frames: a `range` has start and end, a `point` only start."""
    rng, frames = assignment.rng, frame_count(assignment.params)
    events = []
    for name in names:
        start = rng.randrange(frames)
        if rng.random() < 0.7:
            events.append(
                {"label": name, "type": "range", "start": start, "end": rng.randrange(start, frames)}
            )
        else:
            events.append({"label": name, "type": "point", "start": start})
    return events


def make_playback_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations.url`, objects by uuid in a list of one, and always `events.url`.

    Their frames have a `key` (frame number in the source video) and a `timestamp` in seconds. The keys step by
    video_frame_rate (default 30 per second) over frame_rate; they are not consecutive. Source: docs, "Video Playback",
    callback format.
    """
    return _make_files_response(assignment, _annotate_playback(assignment))


def _annotate_playback(assignment: Assignment) -> list[dict[str, Any]]:
    params = assignment.params
    start = read_prelabels(params)
    given = _objects_by_uuid(assignment.read(start.annotations))
    if given:
        held = [shape for followed in given.values() for shape in dicts_in(followed.get("frames"))]
        return [
            {
                "annotations": _nudge_objects(given, _frame_canvas(assignment, held), assignment)
                if start.editable
                else given
            }
        ]
    video_rate = abs(as_number(params.get("video_frame_rate"), 30) or 30)
    rate = abs(as_number(params.get("annotation_frame_rate"), as_number(params.get("frame_rate"), 1)) or 1)
    step = max(1, round(video_rate / rate))
    tracks = make_tracks(assignment, frame_count(params), key="geometry") if start.more else []
    return [{"annotations": dict(_playback_entry(track, step, video_rate) for track in tracks)}]


def _playback_entry(track: Track, step: int, video_rate: float) -> tuple[str, dict[str, Any]]:
    first = next(iter(track.by_frame.values()))
    frames = []
    for position, shape in track.by_frame.items():
        drawn = {name: value for name, value in shape.items() if name not in ("label", "uuid", "geometry")}
        key = 1 + position * step
        timed = {"attributes": shape.get("attributes", {}), "timestamp": round(key / video_rate, 3)}
        frames.append({"key": key, **drawn, **timed})
    label = {"label": first["label"]} if "label" in first else {}
    return first["uuid"], {**label, "geometry": track.kind, "frames": frames}


def _objects_by_uuid(content: Any) -> dict[str, dict[str, Any]]:
    """Return the objects of a file by uuid; the file may wrap them in a list of one and in `annotations`."""
    bare = as_dict(content[0] if isinstance(content, list) and content else content)
    followed = as_dict(bare.get("annotations", bare))
    return {uuid: entry for uuid, entry in followed.items() if isinstance(entry, dict)}


def fix_video_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Make a new file in which a shape of every frame is moved; the old one is read or generated again."""
    given = as_list(assignment.read(response.get("annotations")))
    frames = given or _annotate_frames(assignment.unsalted())
    canvas = _frame_canvas(
        assignment, [a for frame in frames for a in dicts_in(as_dict(frame).get("annotations"))]
    )
    fixed = []
    for frame in frames:
        shapes = dicts_in(as_dict(frame).get("annotations"))
        if shapes:
            frame = {**frame, "annotations": [nudge_shape(shapes[0], canvas, assignment.rng), *shapes[1:]]}
        fixed.append(frame)
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def fix_playback_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Make a new file in which every shape is moved a little; the old one is read or generated again."""
    content = assignment.read(response.get("annotations"))
    given = _objects_by_uuid(content) or _objects_by_uuid(_annotate_playback(assignment.unsalted()))
    held = [shape for followed in given.values() for shape in dicts_in(followed.get("frames"))]
    fixed = [{"annotations": _nudge_objects(given, _frame_canvas(assignment, held), assignment)}]
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def _nudge_objects(
    given: dict[str, dict[str, Any]], canvas: Region, assignment: Assignment
) -> dict[str, dict[str, Any]]:
    return {
        uuid: {
            **followed,
            "frames": [
                nudge_shape(shape, canvas, assignment.rng) for shape in dicts_in(followed.get("frames"))
            ],
        }
        for uuid, followed in given.items()
    }
