"""Scale's annotation objects as rows: one compiled reader a shape, and the field that reads long lists with it.

A callback can hold thousands of annotations, so the readers are closures over hoisted lookups: nested schemas cost 13 to 22
times `json.loads` of the same body, this less than one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from marshmallow import ValidationError

from scale.fields import MAX_COORDINATE, is_number, json_type_name

UNKNOWN_TYPE = "unknown"  # the type of an object that names no shape and whose task implies none


class Annotation(NamedTuple):
    """One row of `annotations`."""

    position: int  # 0-based in its list or file
    type: (
        str  # box polygon line point cuboid ellipse mask cuboid3d segment3d span event, else Scale's own word
    )
    label: str | None
    uuid: str | None
    frame: int | None
    attributes: dict[str, Any] | None
    geometry: dict[str, Any]  # Scale's own keys, and all that has no column; the raw object where flagged
    warning: str | None  # why it was kept raw; None when understood


Check = Callable[[dict[str, Any]], str | None]  # the reason why a geometry is wrong; may rename keys in place
Read = Callable[..., Annotation]  # (item, position, frame=None)

NUMBERS = frozenset((int, float))


def _wrong_number(where: dict[str, Any], keys: tuple[str, ...], prefix: str = "") -> str | None:
    for key in keys:
        if key not in where:
            return f"{prefix}{key} is missing"
        if not is_number(where[key]):
            return f"{prefix}{key} is {json_type_name(where[key])}, not a number"
    return None


def _wrong_points(geometry: dict[str, Any], key: str, keys: tuple[str, ...], least: int) -> str | None:
    points = geometry.get(key)
    if type(points) is not list:
        return f"{key} is {json_type_name(points)}, not a list" if key in geometry else f"{key} is missing"
    if len(points) < least:
        return f"{key} has {len(points)} of at least {least}"
    for position, point in enumerate(points):
        if type(point) is not dict:
            return f"{key}[{position}] is {json_type_name(point)}, not an object"
        if reason := _wrong_number(point, keys, f"{key}[{position}]."):
            return reason
    return None


def _box(geometry: dict[str, Any], numbers: frozenset[type] = NUMBERS) -> str | None:
    """Check an axis-aligned box, pixels, origin top left; left/top may be negative (padding). Playback files have x/y.

    A rotated box adds `rotation` (radians, clockwise) and its 4 `vertices`; left/top are then those of the unrotated box.
    Source: docs "2D Box Annotation", "Boxes", "Video Playback".
    """
    try:
        left, top, width, height = geometry["left"], geometry["top"], geometry["width"], geometry["height"]
    except KeyError as missing:
        if not ("x" in geometry and "y" in geometry) or not geometry.keys().isdisjoint(("left", "top")):
            return f"{missing.args[0]} is missing"
        geometry["left"], geometry["top"] = geometry.pop("x"), geometry.pop("y")
        return _box(geometry)
    if not (
        type(left) in numbers
        and type(top) in numbers
        and type(width) in numbers
        and type(height) in numbers
        and -MAX_COORDINATE < left < MAX_COORDINATE
        and -MAX_COORDINATE < top < MAX_COORDINATE
        and -MAX_COORDINATE < width < MAX_COORDINATE
        and -MAX_COORDINATE < height < MAX_COORDINATE
    ):
        return _wrong_number(geometry, ("left", "top", "width", "height"))
    if len(geometry) > 4:
        if geometry.get("rotation") is not None and not is_number(geometry["rotation"]):
            return f"rotation is {json_type_name(geometry['rotation'])}, not a number"
        if geometry.get("vertices") is not None:
            return _wrong_points(geometry, "vertices", ("x", "y"), 0)
    return None


def _vertices(geometry: dict[str, Any], numbers: frozenset[type] = NUMBERS) -> str | None:
    """Check vertices in drawing order, pixels; the first is not repeated at a polygon's end. Source: docs "Polygons", "Lines"."""
    try:
        vertices = geometry["vertices"]
        for vertex in vertices:
            x, y = vertex["x"], vertex["y"]
            if not (
                type(x) in numbers
                and type(y) in numbers
                and -MAX_COORDINATE < x < MAX_COORDINATE
                and -MAX_COORDINATE < y < MAX_COORDINATE
            ):
                break
        else:
            if vertices and type(vertices) is list:
                return None
    except (KeyError, TypeError):
        pass  # the slow check below finds the reason
    return _wrong_points(geometry, "vertices", ("x", "y"), 1)


def _ellipse(geometry: dict[str, Any]) -> str | None:
    """Check the 4 extremal points of an ellipse, pixels. Source: docs "Ellipses"."""
    return _wrong_points(geometry, "vertices", ("x", "y"), 4)


def _point(geometry: dict[str, Any]) -> str | None:
    """Check x and y, pixels, on the annotation itself. Source: docs "Point Annotation"."""
    return _wrong_number(geometry, ("x", "y"))


def _cuboid(geometry: dict[str, Any]) -> str | None:
    """Check the visible vertices of a cuboid in an image, each with its description.

    Edges may be missing; points_2d and points_3d (8 each) are present if the request described the camera.
    Source: docs "Cuboid Annotation", recorded traffic.
    """
    for key in ("edges", "points_2d", "points_3d"):
        if geometry.get(key) is not None and type(geometry[key]) is not list:
            return f"{key} is {json_type_name(geometry[key])}, not a list"
    return _wrong_points(geometry, "vertices", ("x", "y"), 1)


def _cuboid3d(geometry: dict[str, Any]) -> str | None:
    """Check a lidar cuboid: position of its centre and dimensions as {x, y, z} in metres, yaw in radians.

    Yaw is 0 along +y and grows counter-clockwise. In a scene a cuboid has a `path` instead: timestamps, and for each of
    them x y z yaw pitch roll dx dy dz. Source: docs "Lidar Annotation"; Scale's sensor fusion format.
    """
    if "position" not in geometry and type(geometry.get("path")) is dict:
        return None
    for key in ("position", "dimensions"):
        if key not in geometry:
            return f"{key} is missing"
        if type(geometry[key]) is not dict:
            return f"{key} is {json_type_name(geometry[key])}, not an object"
        if reason := _wrong_number(geometry[key], ("x", "y", "z"), f"{key}."):
            return reason
    if geometry.get("yaw") is not None and not is_number(geometry["yaw"]):
        return f"yaw is {json_type_name(geometry['yaw'])}, not a number"
    return None


def _span(geometry: dict[str, Any]) -> str | None:
    """Check start and end, offsets in the task's text as Scale counts them. Source: docs "Named Entity Recognition"."""
    return _wrong_number(geometry, ("start", "end"))


def _event(geometry: dict[str, Any]) -> str | None:
    """Check an event of a video: `type` range (start, end) or point (start). Source: docs "Video Annotation", events."""
    if geometry.get("end") is not None and not is_number(geometry["end"]):
        return f"end is {json_type_name(geometry['end'])}, not a number"
    return _wrong_number(geometry, ("start",))


SHAPES: dict[str, Check] = {
    "box": _box,
    "polygon": _vertices,
    "line": _vertices,
    "point": _point,
    "ellipse": _ellipse,
    "cuboid": _cuboid,
    "cuboid3d": _cuboid3d,
    "span": _span,
    "event": _event,
}


def reader(implied: str | None = None, *, discriminated: bool = True) -> Read:
    """Compile `read(item, position, frame=None) -> Annotation`, which never raises.

    implied: the shape of an object that names none. discriminated: an object may name its shape by `type`, else `geometry`;
    False where Scale's `type` means something else (events) or nothing. Linked boxes have `cuboid_uuid` instead of `uuid`,
    spans and annotations of a scene `id`. What has no column stays in `geometry` under Scale's own key.
    """
    shape_of, make = SHAPES.get, tuple.__new__

    def read(item: Any, position: int, frame: int | None = None) -> Annotation:
        if type(item) is not dict:
            where = _where(position, frame)
            warning = f"{where} is {json_type_name(item)}, not an object"
            return Annotation(
                position, implied or UNKNOWN_TYPE, None, None, frame, None, {"value": item}, warning
            )
        geometry = item.copy()
        pop = geometry.pop
        label, uuid, attributes = pop("label", None), pop("uuid", None), pop("attributes", None)
        if uuid is None:
            uuid = _other_uuid(geometry)
        word: Any = implied
        if discriminated:
            named, shape = pop("type", None), pop("geometry", None)
            if shape is not None and type(shape) is not str:
                geometry["geometry"] = shape
                shape = None
            word = named or shape or implied or UNKNOWN_TYPE
            if (word == "cuboid" or word == UNKNOWN_TYPE) and _is_in_space(geometry):
                word = "cuboid3d"
        if "path" in geometry and type(attributes) is list:  # of a scene: values over time, with their names
            geometry["attributes"], attributes = attributes, None
        reason: str | None
        if type(word) is not str:
            reason, word = f"type is {json_type_name(word)}, not a string", implied or UNKNOWN_TYPE
        elif (check := shape_of(word)) is None:
            reason = f"no shape {word[:40]!r} is known here" if word != UNKNOWN_TYPE else "it names no shape"
        else:
            reason = check(geometry)
        if type(uuid) is int:
            uuid = str(uuid)
        if label is not None and type(label) is not str:
            reason, label = f"label is {json_type_name(label)}, not a string", None
        if uuid is not None and type(uuid) is not str:
            reason, uuid = f"uuid is {json_type_name(uuid)}, not a string", None
        if attributes is not None and type(attributes) is not dict:
            reason, attributes = f"attributes is {json_type_name(attributes)}, not an object", None
        if reason is None:
            return make(Annotation, (position, word, label, uuid, frame, attributes, geometry, None))
        warning = f"{_where(position, frame)}: {reason}"
        return Annotation(position, word, label, uuid, frame, attributes, item, warning)

    return read


def _other_uuid(geometry: dict[str, Any]) -> Any:
    """Take the key that stands in for `uuid`. An `id` that is neither a string nor an integer means something else."""
    if "cuboid_uuid" in geometry:
        return geometry.pop("cuboid_uuid")
    return geometry.pop("id") if type(geometry.get("id")) in (str, int) else None


def _is_in_space(geometry: dict[str, Any]) -> bool:
    """Return whether a cuboid is one in space, not in an image. A nested `cuboid` is unfolded in place."""
    nested = geometry.get("cuboid")
    if type(nested) is dict and "position" in nested:
        del geometry["cuboid"]
        geometry.update({key: value for key, value in nested.items() if key not in geometry})
        return True
    if "vertices" in geometry:
        return False
    return "position" in geometry or type(geometry.get("path")) is dict


def _where(position: int, frame: int | None) -> str:
    return f"annotation {position}" if frame is None else f"frame {frame}, annotation {position}"


def annotation_list(read: Read) -> Callable[[Any], list[Annotation]]:
    """Return the function of a marshmallow field (`scale.fields.schema`) that reads a whole list with one compiled reader.

    A malformed annotation is kept raw with a warning, at its position. One with `clips` becomes a row for each.
    """
    read_event = reader("event", discriminated=False)

    def read_list(value: Any) -> list[Annotation]:
        if type(value) is not list:
            raise ValidationError(f"is {json_type_name(value)}, not a list")
        if not any("clips" in item for item in value if type(item) is dict):
            return [read(item, position) for position, item in enumerate(value)]
        rows: list[Annotation] = []
        for item in value:
            clips = events_of_clips(item)
            found = [(read, item)] if clips is None else [(read_event, clip) for clip in clips]
            rows += [one(entry, len(rows) + place) for place, (one, entry) in enumerate(found)]
        return rows

    return read_list


def events_of_clips(item: Any) -> list[Any] | None:
    """Return an event for each clip of a track: the track's own keys, then the clip's, with start, end and duration.

    The clips are a list of objects, or an object of lists of equal length. None: the object has no clips.
    """
    if type(item) is not dict or type(item.get("clips")) not in (list, dict):
        return None
    track = {key: value for key, value in item.items() if key != "clips"}
    return [
        {**track, **_clip_times(clip), **clip} if type(clip) is dict else clip
        for clip in _clips(item["clips"])
    ]


def _clips(clips: Any) -> list[Any]:
    if type(clips) is list:
        return clips
    singular = {"timestamps": "timestamp", "durations": "duration", "texts": "text"}
    columns = {singular.get(key, key): value for key, value in clips.items() if type(value) is list}
    length = max(map(len, columns.values()), default=0)
    return [
        {key: values[place] for key, values in columns.items() if place < len(values)}
        for place in range(length)
    ]


def _clip_times(clip: dict[str, Any]) -> dict[str, Any]:
    """Return start, end and duration of a clip, as far as its own timestamps give them."""
    stamps = clip.get("timestamps")
    listed = [stamp for stamp in stamps if is_number(stamp)] if type(stamps) is list else []
    named = [clip.get(key) for key in ("start", "timestamp", "timestamp_secs", "start_time")]
    start = next((value for value in [*named, *listed[:1]] if is_number(value)), None)
    end = next(
        (value for value in [clip.get("end"), clip.get("end_time"), *listed[1:][-1:]] if is_number(value)),
        None,
    )
    duration = clip.get("duration")
    times: dict[str, Any] = {}
    if start is not None:
        times["start"] = start
    if start is not None and end is None and is_number(duration):
        end = start + duration
    if end is not None:
        times["end"] = end
        if start is not None:
            times["duration"] = end - start
    return times


def flat_object(row: Annotation) -> dict[str, Any]:
    """Return a row as Scale's own annotation object, with `type` and `frame` always set.

    The row's own values win over equal keys inside its geometry: an event's `type` there is range or point.
    """
    flat = {**row.geometry, "type": row.type, "frame": row.frame}
    for key, value in (("label", row.label), ("uuid", row.uuid), ("attributes", row.attributes)):
        if value is not None:
            flat[key] = value
    return flat


def names_no_shape(item: Any) -> bool:
    """Return whether an annotation object leaves its shape to its task."""
    return type(item) is dict and not item.get("type") and type(item.get("geometry")) is not str


def shape_of_task(params: dict[str, Any]) -> str | None:
    """Return the one shape that a task's parameters ask for; None where they ask for several, or do not say.

    Source: docs "imageannotation", geometries; annotation_type of linking tasks.
    """
    geometries, named = params.get("geometries"), params.get("annotation_type")
    if type(geometries) is dict and len(geometries) == 1:
        named = next(iter(geometries))
    if type(named) is not str:
        return None
    shape = "box" if named == "annotation" else named.removesuffix("annotation")
    return shape if shape in SHAPES else None
