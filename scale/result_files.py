"""Reads the JSON files behind results into annotation rows, as a stream: a file may be far larger than memory.

A response that points to a file is whole only when the job that fetched it has read it here.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from types import NoneType
from typing import Any, BinaryIO, NamedTuple

import ijson

from scale.annotations import Annotation, Read, reader
from scale.fields import json_type_name
from scale.json_stream import JsonSource, ValueTooLarge, build_value, error_message, finish, json_events
from scale.task_types import task_type as named_type

MAX_VALUE_BYTES = 8 * 1024 * 1024  # of JSON for one row; as Python objects 9 times as much, at worst 24
MAX_POINT_COUNTS = 500_000  # (object, frame) pairs of a point segmentation
MAX_GLOBAL_ATTRIBUTES = 1_000_000  # characters of them that are kept of a file
MAX_LISTED = 20  # stray indexes or keys that a warning names
POINT_BATCH_SIZE = 100_000  # points

Rows = Generator[Annotation, None, None]
END = ("end_array", None)


class UnreadableFile(Exception):
    """The file can't be read into rows; the text says why, in a sentence without its content."""


class FrameSource(NamedTuple):
    """Where a frame comes from: seconds from the start of the video, and the attachment that shows it."""

    time: float | None
    attachment: str | None


def frame_source(params: dict[str, Any], frame: int, task_type: str | None = None) -> FrameSource:
    """The source of a row's `frame`; what the task's parameters do not tell is None.

    Images: the attachment at that position. A video: frames are taken from start_time on, frame_rate (1) a second. In a
    playback file `frame` counts the video's own frames, so there the time needs video_frame_rate.
    Source: docs "General Video Annotation", "Video Playback"; FiftyOne's importer.
    """
    images = params.get("attachments")
    if type(images) is list and images and params.get("attachment_type") != "video":
        image = images[frame] if 0 <= frame < len(images) else None
        if type(image) is dict:
            image = image.get("attachment") or image.get("url")
        return FrameSource(None, image if type(image) is str else None)
    video = params.get("attachment")
    if task_type == "videoplaybackannotation":
        start, rate = 0.0, _number(params.get("video_frame_rate"), 0.0)
    else:
        start, rate = _number(params.get("start_time"), 0.0), _number(params.get("frame_rate"), 1.0)
    time = start + frame / rate if rate > 0 else None
    return FrameSource(time, video if type(video) is str else None)


def _number(value: Any, otherwise: float) -> float:
    if type(value) is str:
        try:
            value = float(value)
        except ValueError:
            return otherwise
    return float(value) if type(value) in (int, float) and 0 <= value < 1e9 else otherwise


class ResultFileReader(Iterator[Annotation]):
    """Read the annotation rows of a result file that was opened for reading, one after another.

    role: that of the artifact (annotations, events, point_segmentations, …). The keys of the file show its form:
      [{"annotations": […], "global_attributes"}]     a frame each: 0, 1, …
      {"annotations": {uuid: {label, geometry, frames: [{key, …}]}}}, also in a list of one: a row for each uuid and key
      {"events": […]}    [{"cuboids": […]}]    [{"camera_responses": [{camera_used, annotations: […]}]}]
      {"objects": […], "point_objects": [[…]]}, also spelled labels, point_labels: a row for each object
    Positions count through the file. An object of no known form becomes one raw row with a warning.
    Raises UnreadableFile, also between rows. Source: docs, callback formats of the video and lidar types; FiftyOne.

    Complete once the rows have ended:
    global_attributes: [{"frame": n, "global_attributes": {…}}], an entry where they differ from the frame's before.
    warnings: sentences about the file; the warning of one row stays with the row.
    """

    def __init__(self, role: str, task_type: str | None, params: dict[str, Any], file: BinaryIO) -> None:
        self.global_attributes: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        implied = named_type(task_type).implied
        self._annotation = reader(implied, discriminated=implied != "cuboid3d")
        self._cuboid = reader("cuboid3d", discriminated=False)
        self._event = reader("event", discriminated=False)
        self._role = role
        self._params = params
        self._source = JsonSource(file, MAX_VALUE_BYTES)
        self._events = json_events(self._source)
        self._position = 0
        self._unread: set[str] = set()
        self._attributes_kept = 0
        self._rows = self._file()

    def __next__(self) -> Annotation:
        try:
            return next(self._rows)
        except ijson.JSONError as error:
            raise UnreadableFile(f"it is not JSON: {error_message(error)}") from None
        except ValueTooLarge as error:
            raise UnreadableFile(f"one value in it is larger than {error.args[0]:,} bytes") from None
        except UnicodeDecodeError:  # half a surrogate pair, written as an escape
            raise UnreadableFile("it holds text that is not Unicode") from None
        except RecursionError:
            raise UnreadableFile("it is nested too deeply") from None

    # --- the file and its elements

    def _file(self) -> Rows:
        event, value = next(self._events)
        if event == "start_map":
            yield from self._element(None)
        elif event == "start_array":
            yield from self._elements()
        else:
            raise UnreadableFile(f"it holds {json_type_name(value)}, no annotations")
        if self._unread:
            keys = ", ".join(sorted(self._unread)[:MAX_LISTED])
            self.warnings.append(f"beside what became rows, the file holds: {keys}")
        if finish(self._events) or self._source.has_binary_part:
            self.warnings.append("data follows the JSON text; it is kept in the file alone")
            if self._source.has_references:
                self.warnings.append("values of the JSON text refer to that data and are not read")

    def _elements(self) -> Rows:
        """The elements of a list: frames, or objects that stand there by themselves."""
        frames, named = 0, False
        for event, value in self._until("end_array"):
            if event == "start_map":
                named = (yield from self._element(frames)) or named
            elif event == "start_array":
                yield from self._list(self._annotation, frames)
            elif event != "null":  # a frame without annotations
                yield self._row(self._annotation, value)
            self._source.release()
            frames += 1
        images = self._params.get("attachments")
        if named and frames > 1 and type(images) is list and len(images) != frames:
            self.warnings.append(f"the file has {frames} frames, the task {len(images)} attachments")

    def _element(self, frame: int | None) -> Generator[Annotation, None, bool]:
        """A frame, or a whole file that is one object. Returns whether a list of rows was found by its name."""
        lists = {"annotations": self._annotation, "cuboids": self._cuboid, "events": self._event}
        named, rest, counts = False, dict[str, Any](), None
        for _, key in self._until("end_map"):
            event, value = next(self._events)
            if key in lists and event in ("start_array", "null"):
                named = True
                if event == "start_array":
                    yield from self._list(lists[key], frame)
            elif key == "annotations" and event == "start_map":
                named = True
                for _, uuid in self._until("end_map"):
                    event, value = next(self._events)
                    alone = yield from self._tracked(uuid, event, value)
                    if event != "start_map" or alone is not None:
                        item = {**alone, "uuid": uuid} if type(alone) is dict else alone
                        yield self._row(self._annotation, item)
            elif key == "camera_responses" and event == "start_array":
                named = True
                for event, value in self._until("end_array"):
                    yield from self._camera(event, value, frame)
            elif key in ("point_objects", "point_labels") and event == "start_array":
                named, counts = True, self._count_points(key)
            elif event == "start_map" and key != "global_attributes":
                value = yield from self._tracked(key, event, value)
                if value is None:
                    named = True
                else:
                    rest[key] = value
            else:
                rest[key] = self._value(event, value)
        self._keep_global_attributes(frame, rest.pop("global_attributes", None))
        if counts is not None or (self._role == "point_segmentations" and "objects" in rest):
            yield from self._segments(rest.get("objects", rest.get("labels")), counts or {})
        elif rest and not named:
            yield self._row(self._event if self._role == "events" else self._annotation, rest)
        elif len(self._unread) < MAX_LISTED:
            self._unread.update(key[:60] for key, value in rest.items() if type(value) in (dict, list))
        return named

    def _list(self, read_one: Read, frame: int | None) -> Rows:
        for event, value in self._until("end_array"):
            yield self._row(read_one, self._value(event, value), frame)

    # --- objects whose rows lie in a list within them

    def _tracked(self, uuid: str, event: str, value: Any) -> Generator[Annotation, None, Any]:
        """An object of a playback file: what it says of itself holds on each of its frames. Returns what has no frames."""

        def row(track: dict[str, Any], item: Any) -> Annotation:
            if type(item) is not dict:
                return self._row(self._annotation, item)
            frame = item.get("key")
            if (type(frame) is float and frame.is_integer()) or (type(frame) is str and frame.isdecimal()):
                frame = int(frame)
            if type(frame) is not int or not 0 <= frame < 2**31:
                made = self._row(self._annotation, {**track, **item, "uuid": uuid})
                return made._replace(
                    warning=made.warning or f"annotation {made.position}: its key is no frame number"
                )
            attributes = item.get("attributes")
            if type(track.get("attributes")) is dict and type(attributes) in (dict, NoneType):
                item["attributes"] = {**track["attributes"], **(attributes or {})}
            del item["key"]
            return self._row(self._annotation, {**track, **item, "uuid": uuid}, frame)

        return (yield from self._with_list("frames", {"label", "geometry"}, row, event, value))

    def _camera(self, event: str, value: Any, frame: int | None) -> Rows:
        """The shapes that one camera of a frame saw; each says which camera it was."""

        def row(camera: dict[str, Any], item: Any) -> Annotation:
            return self._row(self._annotation, {**camera, **item} if type(item) is dict else item, frame)

        camera = yield from self._with_list("annotations", {"camera_used"}, row, event, value)
        if camera is not None and (
            type(camera) is not dict or camera.keys() - {"camera_used", "annotations"}
        ):
            yield self._row(self._annotation, camera, frame)

    def _with_list(
        self,
        name: str,
        needed: set[str],
        row: Callable[[dict[str, Any], Any], Annotation],
        event: str,
        value: Any,
    ) -> Generator[Annotation, None, Any]:
        """Rows of an object's list `name`, each made with the object's other values; the object if it has no such list.

        The list is read as a stream once the `needed` values are known. Where they come after it, it waits in memory,
        and the bound on one value holds for all of it.
        """
        if event != "start_map":
            return self._value(event, value)
        others, waiting, listed = dict[str, Any](), list[Any](), False
        for _, key in self._until("end_map"):
            event, value = next(self._events)
            if key != name or event != "start_array":
                others[key] = self._value(event, value)
                continue
            listed = True
            for event, value in self._until("end_array"):
                item = self._value(event, value)
                if needed <= others.keys():
                    yield row(others, item)
                else:
                    waiting.append(item)
        for item in waiting:
            yield row(others, item)
        return None if listed else others

    # --- point segmentations

    def _count_points(self, name: str) -> dict[int, dict[str, int]]:
        """Points by object index and frame, from a list for each frame with the index of each point's object."""
        counts: dict[int, dict[str, int]] = {}
        pairs = 0
        self._source.unbounded()
        for frame, (event, _) in enumerate(self._until("end_array")):
            if event != "start_array":
                raise UnreadableFile(f"{name} is not a list of lists")
            points = iter(self._events.__next__, END)
            while part := Counter(islice(points, POINT_BATCH_SIZE)):
                for (event, index), count in part.items():
                    if event != "number" or index != int(index):
                        raise UnreadableFile(f"{name} has a point without an index in frame {frame}")
                    by_frame = counts.setdefault(int(index), {})
                    pairs += str(frame) not in by_frame
                    by_frame[str(frame)] = by_frame.get(str(frame), 0) + count
                if pairs > MAX_POINT_COUNTS:
                    raise UnreadableFile(
                        f"{name} has more than {MAX_POINT_COUNTS:,} pairs of object and frame"
                    )
        self._source.release()
        return counts

    def _segments(self, objects: Any, counts: dict[int, dict[str, int]]) -> Rows:
        """A row for each object, with its points by frame (frames without any are left out). Index 0 is no object."""
        claimed = {0}
        for place, item in enumerate(objects if type(objects) is list else ()):
            if type(item) is str:  # a bare label; indexes count from 1
                item = {"label": item, "index": place + 1}
            row = self._row(_segment, item)
            index: Any = row.geometry.get("index")
            if row.warning is None and index in claimed:
                row = row._replace(warning=f"annotation {row.position}: index {index} is not its own")
            elif row.warning is None:
                claimed.add(index)
                by_frame = counts.get(index, {})
                row.geometry.update(points=sum(by_frame.values()), points_by_frame=by_frame)
            yield row
        for index in sorted(counts.keys() - claimed)[:MAX_LISTED]:
            self.warnings.append(
                f"points with index {index}, which is no object's: {sum(counts[index].values())}"
            )

    # --- values

    def _row(self, read_one: Read, item: Any, frame: int | None = None) -> Annotation:
        row = read_one(item, self._position, frame)
        self._position += 1
        self._source.release()
        return row

    def _until(self, end: str) -> Iterator[tuple[str, Any]]:
        """The events of a list or an object that was just opened: its values' first ones, or its keys."""
        return iter(self._events.__next__, (end, None))

    def _value(self, event: str, value: Any) -> Any:
        """The value that this event is or opens."""
        return build_value(event, value, self._events)

    def _keep_global_attributes(self, frame: int | None, attributes: Any) -> None:
        last = self.global_attributes[-1]["global_attributes"] if self.global_attributes else None
        if attributes is None or attributes == last or self._attributes_kept > MAX_GLOBAL_ATTRIBUTES:
            return
        self.global_attributes.append({"frame": frame, "global_attributes": attributes})
        self._attributes_kept += len(repr(attributes))
        if self._attributes_kept > MAX_GLOBAL_ATTRIBUTES:
            self.warnings.append(
                f"the global attributes after frame {frame} stand in the file alone: they are too many"
            )


def _segment(item: Any, position: int, frame: int | None = None) -> Annotation:
    """An object of a point segmentation: label, index and, where instances are told apart, instance."""
    if type(item) is not dict:
        warning = f"annotation {position} is {json_type_name(item)}, not an object"
        return Annotation(position, "segment3d", None, None, frame, None, {"value": item}, warning)
    geometry = dict(item)
    label, attributes = geometry.pop("label", None), geometry.pop("attributes", None)
    reason = None
    if type(geometry.get("index")) is not int:
        reason = "it has no index"
    elif type(label) not in (str, NoneType) or type(attributes) not in (dict, NoneType):
        reason = "its label is no string, or its attributes are no object"
    if reason is None:
        return Annotation(position, "segment3d", label, None, frame, attributes, geometry, None)
    label = label if type(label) is str else None
    return Annotation(
        position, "segment3d", label, None, frame, None, item, f"annotation {position}: {reason}"
    )
