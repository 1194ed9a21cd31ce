"""Video: objects followed over frames, in the files of videoannotation and of videoplaybackannotation."""

import math
from typing import Any, NamedTuple

from sandbox.annotators.assignment import Assignment, mapping, number, sequence
from sandbox.annotators.attributes import answer_attributes, link
from sandbox.annotators.images import (
    annotate,
    annotation_limits,
    canvas_of,
    prelabels,
    wanted,
)
from sandbox.annotators.labels import label_names
from sandbox.annotators.shapes import Region, nudge

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
    rate = number(params.get("frame_rate"), 1) or 1
    seconds = number(params.get("duration_time"), ASSUMED_SECONDS) or ASSUMED_SECONDS
    return max(1, min(MOST_FRAMES, math.ceil(abs(rate * seconds))))


def follow(assignment: Assignment, frames: int, *, key: str) -> list[Track]:
    """New tracks: each object is seen over a run of frames and drifts from one to the next within the canvas."""
    params, die = assignment.params, assignment.die
    wants = wanted(assignment.type, params)
    if not wants:
        return []
    canvas = canvas_of(assignment, _first_attachment(params), holding=[])
    fewest, most = annotation_limits(params)
    count = min(max(die.randint(2, 4), len(wants), fewest), most)
    tracks = []
    for number_of_it in range(count):
        want = wants[number_of_it % len(wants)]
        first = die.randrange(max(1, frames // 3)) if number_of_it else 0
        last = max(first, frames - 1 - die.randrange(max(1, frames // 3)))
        shape = annotate(assignment, want, canvas, key=key)
        by_frame = {first: shape}
        for frame in range(first + 1, last + 1):
            shape = nudge(shape, canvas, die)
            by_frame[frame] = shape
        tracks.append(Track(want.kind, by_frame))
    return tracks


def _first_attachment(params: dict[str, Any]) -> Any:
    """The first frame's image; a video file is never opened for its size."""
    return next(iter(sequence(params.get("attachments"))), None)


def answer_video(assignment: Assignment) -> dict[str, Any]:
    """`annotations.url`: a JSON array with `{annotations}` for each frame, in the order of the attachments; `events.url`
    when events_to_annotate were given. Source: docs, "Video Annotation", callback format.

    Also for the older types videobox-, videopolygon-, videocuboid- and laneannotation and federal2dvideoannotation, of
    which only the names are known: a guess.
    """
    return _response(assignment, _frames(assignment))


def _frames(assignment: Assignment) -> list[dict[str, Any]]:
    params = assignment.params
    count = frame_count(params)
    taken, more = _prelabeled_frames(assignment, count)
    frames: list[dict[str, Any]] = [{"annotations": annotations} for annotations in taken]
    if more:
        for track in follow(assignment, count, key="type"):
            for frame, annotation in track.by_frame.items():
                frames[frame]["annotations"].append(annotation)
    of_image = answer_attributes(params.get("annotation_attributes"), None, assignment.die, of_image=True)
    for frame in frames:
        link(frame["annotations"], params.get("annotation_attributes"), assignment.die)
        if of_image:
            frame["global_attributes"] = of_image
    return frames


def _prelabeled_frames(assignment: Assignment, count: int) -> tuple[list[list[dict[str, Any]]], bool]:
    """Annotations by frame that the task starts with, as they come back; and whether new ones are made.

    The file of a hypothesis or of base_annotations is taken up where it can be read.
    """
    params = assignment.params
    base, hypothesis = mapping(params.get("base_annotations")), mapping(params.get("hypothesis"))
    given = _file_frames(assignment, base) or _file_frames(assignment, hypothesis)
    _, editable, more = prelabels(params)
    editable = editable and not (base and params.get("can_edit_base_annotations") is False)
    more = more and not (base and params.get("can_add_base_annotations") is False)
    if not given:
        return [[] for _ in range(count)], more
    held = [annotation for frame in given for annotation in frame]
    canvas = canvas_of(assignment, _first_attachment(params), holding=held)
    frames = [
        [nudge(annotation, canvas, assignment.die) if editable else annotation for annotation in frame]
        for frame in given
    ]
    return (frames + [[] for _ in range(count - len(frames))])[: max(count, len(frames))], False


def _file_frames(assignment: Assignment, prelabel: dict[str, Any]) -> list[list[dict[str, Any]]]:
    content = assignment.read_json(mapping(prelabel.get("annotations")).get("url"))
    return [
        [
            annotation
            for annotation in sequence(mapping(frame).get("annotations"))
            if isinstance(annotation, dict)
        ]
        for frame in sequence(content)
    ]


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
    return _response(assignment, _objects(assignment))


def _objects(assignment: Assignment) -> list[dict[str, Any]]:
    params = assignment.params
    video_rate = number(params.get("video_frame_rate"), 30) or 30
    rate = number(params.get("annotation_frame_rate"), number(params.get("frame_rate"), 1)) or 1
    step = max(1, round(abs(video_rate / rate)))
    objects = {}
    for track in follow(assignment, frame_count(params), key="geometry"):
        shapes = list(track.by_frame.values())
        head = {name: shapes[0][name] for name in ("label",) if name in shapes[0]}
        objects[shapes[0]["uuid"]] = {
            **head,
            "geometry": track.kind,
            "frames": [
                {
                    "key": 1 + frame * step,
                    **{
                        name: value
                        for name, value in shape.items()
                        if name not in ("label", "uuid", "geometry")
                    },
                    "attributes": shape.get("attributes", {}),
                    "timestamp": round((1 + frame * step) / abs(video_rate), 3),
                }
                for frame, shape in track.by_frame.items()
            ],
        }
    return [{"annotations": objects}]


def fix_video(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """A new file: what the old one said, read or generated again, with the first shapes of some frames moved."""
    given = assignment.read_json(mapping(response.get("annotations")).get("url"))
    playback = assignment.type == "videoplaybackannotation"
    first = assignment.unsalted()
    content = given or (_objects(first) if playback else _frames(first))
    canvas = canvas_of(assignment, _first_attachment(assignment.params), holding=[])
    fixed = (
        _moved_objects(content, canvas, assignment)
        if playback
        else _moved_frames(content, canvas, assignment)
    )
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def _moved_frames(content: Any, canvas: Region, assignment: Assignment) -> list[Any]:
    frames = []
    for frame in sequence(content):
        shapes = sequence(mapping(frame).get("annotations"))
        if shapes and isinstance(shapes[0], dict):
            frame = {**frame, "annotations": [nudge(shapes[0], canvas, assignment.die), *shapes[1:]]}
        frames.append(frame)
    return frames


def _moved_objects(content: Any, canvas: Region, assignment: Assignment) -> list[Any]:
    wrapped = content if isinstance(content, list) else [content]
    objects = dict(mapping(mapping(wrapped[0] if wrapped else None).get("annotations")))
    for uuid, followed in objects.items():
        shapes = [mapping(shape) for shape in sequence(mapping(followed).get("frames"))]
        objects[uuid] = {**mapping(followed), "frames": [nudge(s, canvas, assignment.die) for s in shapes]}
        break
    return [{"annotations": objects}]
