"""Video: objects followed over frames, in the files of videoannotation, of the older video types and of Video V2."""

import math
from typing import Any, NamedTuple

from sandbox.annotators.assignment import Assignment, mapping, number, objects, sequence
from sandbox.annotators.attributes import link
from sandbox.annotators.images import (
    annotate,
    annotation_limits,
    attributes_of_image,
    canvas_of,
    layered,
    take_up,
    wanted,
)
from sandbox.annotators.labels import label_names
from sandbox.annotators.prelabels import prelabels
from sandbox.annotators.shapes import Region, nudge

# Where the request of one of the older types says no geometries: the shape that its name says.
GEOMETRY_OF_TYPE = {
    "videoboxannotation": "box",
    "videopolygonannotation": "polygon",
    "videocuboidannotation": "cuboid",
    "laneannotation": "line",
}
ASSUMED_SECONDS = 8
MOST_FRAMES = 2000


class Track(NamedTuple):
    """One object: its annotation by frame (position in the list of frames), under the same uuid and label."""

    kind: str
    by_frame: dict[int, dict[str, Any]]


def frame_count(params: dict[str, Any]) -> int:
    """One frame an attachment; of a video file duration_time times frame_rate (default 1 a second)."""
    frames = sequence(params.get("attachments"))
    if frames and params.get("attachment_type") != "video":
        return len(frames)
    if params.get("attachment_type") == "image":
        return 1
    rate = number(params.get("frame_rate"), 1) or 1
    seconds = number(params.get("duration_time"), ASSUMED_SECONDS) or ASSUMED_SECONDS
    return max(1, min(MOST_FRAMES, math.ceil(abs(rate * seconds))))


def _canvas(assignment: Assignment, holding: list[dict[str, Any]]) -> Region:
    """That of the first frame's image; a video file is not opened for its size."""
    frames = sequence(assignment.params.get("attachments"))
    return canvas_of(
        assignment, frames[0] if frames else assignment.params.get("attachment"), holding=holding
    )


def follow(assignment: Assignment, frames: int, *, key: str) -> list[Track]:
    """New tracks: each object is seen over a run of frames and drifts from one to the next within the canvas.

    What a file of layers shows on the first frame is followed first.
    """
    params, die = assignment.params, assignment.die
    wants = wanted(params, None)
    if not wants and assignment.type in GEOMETRY_OF_TYPE:
        wants = wanted(params, GEOMETRY_OF_TYPE[assignment.type])
    if not wants:
        return []
    layers = sequence(assignment.read(params.get("layers")))
    drawn = layered(layers[0]) if layers else []
    canvas = _canvas(assignment, drawn)
    fewest, most = annotation_limits(params)
    count = min(max(die.randint(2, 4), len(wants), len(drawn), fewest), most)
    tracks = []
    for position in range(count):
        want = wants[position % len(wants)]
        around = drawn[position] if position < len(drawn) else None
        first = 0 if around or not position else die.randrange(max(1, frames // 3))
        last = max(first, frames - 1 - die.randrange(max(1, frames // 3)))
        shape = annotate(assignment, want, canvas, key=key, around=around)
        by_frame = {first: shape}
        for frame in range(first + 1, last + 1):
            shape = nudge(shape, canvas, die)
            by_frame[frame] = shape
        tracks.append(Track(want.kind, by_frame))
    return tracks


def answer_video(assignment: Assignment) -> dict[str, Any]:
    """`annotations.url`: a JSON array with `{annotations}` for each frame, in the order of the attachments; `events.url`
    when events_to_annotate were given. Source: docs, "Video Annotation", callback format.

    The older video types and federal2dvideoannotation answer the same way, which is a guess: only their names are known.
    """
    return _response(assignment, _frames(assignment))


def _frames(assignment: Assignment) -> list[dict[str, Any]]:
    params = assignment.params
    start = prelabels(params)
    given = [
        objects(mapping(frame).get("annotations")) for frame in sequence(assignment.read(start.annotations))
    ]
    count = max(frame_count(params), len(given))
    frames: list[dict[str, Any]] = [{"annotations": []} for _ in range(count)]
    canvas = _canvas(assignment, [annotation for annotations in given for annotation in annotations])
    for frame, annotations in zip(frames, given, strict=False):
        frame["annotations"] = [take_up(assignment, a, canvas, "type", start.editable) for a in annotations]
    if start.more and not given:
        for track in follow(assignment, count, key="type"):
            for position, annotation in track.by_frame.items():
                frames[position]["annotations"].append(annotation)
        for frame in frames:
            link(frame["annotations"], params.get("annotation_attributes"), assignment.die)
    if of_image := attributes_of_image(assignment, start.global_attributes):
        frames = [{**frame, "global_attributes": of_image} for frame in frames]
    return frames


def _response(assignment: Assignment, content: Any) -> dict[str, Any]:
    response: dict[str, Any] = {"annotations": {"url": assignment.put_json(content)}}
    names = label_names(assignment.params.get("events_to_annotate"))
    if names or assignment.type == "videoplaybackannotation":
        response["events"] = {"url": assignment.put_json({"events": _events(assignment, names)})}
    return response


def _events(assignment: Assignment, names: list[str]) -> list[dict[str, Any]]:
    """Events in frames: a `range` has start and end, a `point` only start."""
    die, frames = assignment.die, frame_count(assignment.params)
    events = []
    for name in names:
        start = die.randrange(frames)
        if die.random() < 0.7:
            events.append(
                {"label": name, "type": "range", "start": start, "end": die.randrange(start, frames)}
            )
        else:
            events.append({"label": name, "type": "point", "start": start})
    return events


def answer_playback(assignment: Assignment) -> dict[str, Any]:
    """`annotations.url`: objects keyed by uuid, wrapped in a list of one, whose frames have a `key` (frame number in the
    source video) and a `timestamp` in seconds; `events.url` always. Source: docs, "Video Playback", callback format.

    The keys step by video_frame_rate (30 a second if not said) over frame_rate; they are not consecutive.
    """
    return _response(assignment, _playback(assignment))


def _playback(assignment: Assignment) -> list[dict[str, Any]]:
    params = assignment.params
    start = prelabels(params)
    given = _by_uuid(assignment.read(start.annotations))
    if given:
        held = [shape for followed in given.values() for shape in objects(followed.get("frames"))]
        return [
            {"annotations": _moved(given, _canvas(assignment, held), assignment) if start.editable else given}
        ]
    video_rate = abs(number(params.get("video_frame_rate"), 30) or 30)
    rate = abs(number(params.get("annotation_frame_rate"), number(params.get("frame_rate"), 1)) or 1)
    step = max(1, round(video_rate / rate))
    tracks = follow(assignment, frame_count(params), key="geometry") if start.more else []
    return [{"annotations": dict(_playback_object(track, step, video_rate) for track in tracks)}]


def _playback_object(track: Track, step: int, video_rate: float) -> tuple[str, dict[str, Any]]:
    first = next(iter(track.by_frame.values()))
    frames = []
    for position, shape in track.by_frame.items():
        drawn = {name: value for name, value in shape.items() if name not in ("label", "uuid", "geometry")}
        key = 1 + position * step
        timed = {"attributes": shape.get("attributes", {}), "timestamp": round(key / video_rate, 3)}
        frames.append({"key": key, **drawn, **timed})
    label = {"label": first["label"]} if "label" in first else {}
    return first["uuid"], {**label, "geometry": track.kind, "frames": frames}


def _by_uuid(content: Any) -> dict[str, dict[str, Any]]:
    """Playback objects by uuid, from a file's content: bare or in a list of one, with or without `annotations` around."""
    bare = mapping(content[0] if isinstance(content, list) and content else content)
    followed = mapping(bare.get("annotations", bare))
    return {uuid: entry for uuid, entry in followed.items() if isinstance(entry, dict)}


def fix_video(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """A new file: what the old one says, read or generated again, with a shape of every frame moved."""
    given = sequence(assignment.read(response.get("annotations")))
    frames = given or _frames(assignment.unsalted())
    canvas = _canvas(assignment, [a for frame in frames for a in objects(mapping(frame).get("annotations"))])
    fixed = []
    for frame in frames:
        shapes = objects(mapping(frame).get("annotations"))
        if shapes:
            frame = {**frame, "annotations": [nudge(shapes[0], canvas, assignment.die), *shapes[1:]]}
        fixed.append(frame)
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def fix_playback(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """A new file: what the old one says, read or generated again, with all frames of all objects moved a little."""
    content = assignment.read(response.get("annotations"))
    given = _by_uuid(content) or _by_uuid(_playback(assignment.unsalted()))
    held = [shape for followed in given.values() for shape in objects(followed.get("frames"))]
    fixed = [{"annotations": _moved(given, _canvas(assignment, held), assignment)}]
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def _moved(
    given: dict[str, dict[str, Any]], canvas: Region, assignment: Assignment
) -> dict[str, dict[str, Any]]:
    return {
        uuid: {
            **followed,
            "frames": [nudge(shape, canvas, assignment.die) for shape in objects(followed.get("frames"))],
        }
        for uuid, followed in given.items()
    }
