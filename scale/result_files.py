"""Reads the JSON files behind results into annotation rows, as a stream: a file may be far larger than memory.

A response that points to a file is complete only when the job that fetched it has read it here.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from types import NoneType
from typing import Any, BinaryIO

import ijson

from scale.annotations import (
    Annotation,
    Read,
    events_of_clips,
    names_no_shape,
    reader,
    shape_of_task,
)
from scale.fields import json_type_name
from scale.json_stream import (
    JsonSource,
    ValueTooLarge,
    build_value,
    error_message,
    finish,
    json_events,
    skip_value,
)
from scale.task_types import task_type as named_type
from scale.task_types.base import shape_note

MAX_ROWS = 20_000_000
"""Rows of one file."""
MAX_FRAME = 1_000_000
"""The largest number of a frame: more than nine hours of video."""
MAX_VALUE_BYTES = 8 * 1024 * 1024
"""JSON of one row; as Python objects 9 times as much, at worst 24."""
MAX_POINT_COUNTS = 500_000
"""(object, frame) pairs of a point segmentation."""
MAX_GLOBAL_ATTRIBUTES = 1_000_000
"""Characters of them that are kept of a file."""
MAX_LISTED = 20
"""Indexes or keys that a warning names."""
POINT_BATCH_SIZE = 100_000

Rows = Generator[Annotation, None, None]
END = ("end_array", None)
KEPT_KEYS = ("global_attributes", "objects", "labels")
"""Values of a frame that are used after its rows."""


class UnreadableFile(Exception):
    """Raised when a file cannot be read into rows; the text says why, without the file's content."""


@dataclass(slots=True)
class _Element:
    """What was read of a frame, or of a whole file that is one object."""

    frame: int | None
    has_rows: bool = False
    """Whether a list of rows was found by its name."""
    values: dict[str, Any] = field(default_factory=dict)
    points: dict[int, dict[str, int]] | None = None


class ResultFileReader(Iterator[Annotation]):
    """Read the annotation rows of a result file that was opened for reading, one after another.

    role: that of the artifact (annotations, events, point_segmentations, …). The keys of the file show its form:
      [{"annotations": […], "global_attributes"}]     a frame each: 0, 1, …
      {"annotations": {uuid: {label, geometry, frames: [{key, …}]}}}, also in a list of one: a row for each uuid and key
      {"events": […]}    [{"cuboids": […]}]    [{"camera_responses": [{camera_used, annotations: […]}]}]
      {"objects": […], "point_objects": [[…]]}, also spelled labels, point_labels: a row for each object
    Positions count through the file. An object of no known form becomes one raw row with a warning; one with `clips` an
    event for each. Raises UnreadableFile, also between rows: for what is not JSON, and beyond the MAX_ bounds above.
    Source: docs, callback formats of the video and lidar types; FiftyOne.

    Complete once the rows have ended:
    global_attributes: [{"frame": n, "global_attributes": {…}}], an entry where they differ from the frame's before.
    warnings: sentences about the file; the warning of one row stays with the row.
    """

    def __init__(self, role: str, task_type: str | None, params: dict[str, Any], file: BinaryIO) -> None:
        self.global_attributes: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        implied = named_type(task_type).implied
        self._shape_of_task = shape_of_task(params) if implied is None else None
        self._annotation = reader(implied or self._shape_of_task, discriminated=implied != "cuboid3d")
        self._cuboid = reader("cuboid3d", discriminated=False)
        self._event = reader("event", discriminated=False)
        self._role = role
        self._params = params
        self._source = JsonSource(file, MAX_VALUE_BYTES)
        self._events = json_events(self._source)
        self._position = 0
        self._without_shape = 0
        self._unread: Counter[str] = Counter()
        self._attributes_kept = 0
        self._rows = self._file()

    @property
    def bytes_read(self) -> int:
        """Return the number of bytes of the file that were read so far."""
        return self._source.bytes

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
        self._report_the_rest(finish(self._events) or self._source.has_binary_part)

    def _report_the_rest(self, has_binary_part: bool) -> None:
        if self._unread:
            keys = ", ".join(key for key, _ in self._unread.most_common(MAX_LISTED))
            self.warnings.append(f"values of the file that are in no row: {self._unread.total()} ({keys})")
        if self._shape_of_task is not None and self._without_shape:
            self.warnings.append(shape_note(self._without_shape, self._shape_of_task))
        if has_binary_part:
            self.warnings.append("data follows the JSON text; it is kept in the file alone")
            if self._source.has_references:
                self.warnings.append("values of the JSON text refer to that data and are not read")

    def _elements(self) -> Rows:
        """Read the elements of a list: frames, or objects that each are a row."""
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
        """Read a frame, or a whole file that is one object. Return whether a list of rows was found by its name."""
        element = _Element(frame)
        for _, key in self._until("end_map"):
            event, value = next(self._events)
            read = self._reads(key, event)
            yield from read(element, key, event, value)
        yield from self._end_of(element)
        return element.has_rows

    def _reads(self, key: str, event: str) -> Callable[[_Element, str, str, Any], Rows]:
        """Return what reads a value of an element that has this key and begins with this event."""
        if event in ("start_array", "null") and key in ("annotations", "cuboids", "events"):
            return self._named_list
        if event == "start_map" and key == "annotations":
            return self._tracks
        if event == "start_array" and key == "camera_responses":
            return self._cameras
        if event == "start_array" and key in ("point_objects", "point_labels"):
            return self._points
        if event == "start_map" and key != "global_attributes":
            return self._perhaps_track
        return self._other

    def _named_list(self, element: _Element, key: str, event: str, value: Any) -> Rows:
        self._found_rows(element)
        if event == "start_array":
            lists = {"annotations": self._annotation, "cuboids": self._cuboid, "events": self._event}
            yield from self._list(lists[key], element.frame)

    def _tracks(self, element: _Element, key: str, event: str, value: Any) -> Rows:
        self._found_rows(element)
        for _, uuid in self._until("end_map"):
            event, value = next(self._events)
            alone = yield from self._tracked(uuid, event, value)
            if event != "start_map" or alone is not None:
                item = {**alone, "uuid": uuid} if type(alone) is dict else alone
                yield from self._rows_of(self._annotation, item)

    def _cameras(self, element: _Element, key: str, event: str, value: Any) -> Rows:
        self._found_rows(element)
        for event, value in self._until("end_array"):
            yield from self._camera(event, value, element.frame)

    def _points(self, element: _Element, key: str, event: str, value: Any) -> Rows:
        self._found_rows(element)
        element.points = self._count_points(key)
        yield from ()

    def _perhaps_track(self, element: _Element, key: str, event: str, value: Any) -> Rows:
        if element.has_rows and key in KEPT_KEYS:
            yield from self._other(element, key, event, value)
            return
        alone = yield from self._tracked(key, event, value)
        if alone is None:
            self._found_rows(element)
        elif type(alone.get("clips")) in (list, dict):
            self._found_rows(element)
            yield from self._rows_of(self._annotation, {**alone, "uuid": key})
        elif element.has_rows:
            self._count_unread(key)
        else:
            element.values[key] = alone

    def _other(self, element: _Element, key: str, event: str, value: Any) -> Rows:
        """Keep a value that may be needed later. What only a warning names is not kept in memory."""
        if element.has_rows and key not in KEPT_KEYS:
            self._count_unread(key)
            self._skip(event)
        else:
            element.values[key] = self._value(event, value)
        yield from ()

    def _found_rows(self, element: _Element) -> None:
        """Mark the element as a frame, not a row. Its other values are in no row, so they are only counted."""
        element.has_rows = True
        for key in element.values.keys() - set(KEPT_KEYS):
            self._count_unread(key)
            del element.values[key]

    def _end_of(self, element: _Element) -> Rows:
        values = element.values
        self._keep_global_attributes(element.frame, values.pop("global_attributes", None))
        if element.points is not None or (self._role == "point_segmentations" and "objects" in values):
            yield from self._segments(values.pop("objects", values.pop("labels", None)), element.points or {})
        elif values and not element.has_rows:
            yield from self._rows_of(self._event if self._role == "events" else self._annotation, values)
            return
        for key in values:
            self._count_unread(key)

    def _count_unread(self, key: str) -> None:
        self._unread[key[:60] if key[:60] in self._unread or len(self._unread) < MAX_LISTED else "…"] += 1

    def _list(self, read_one: Read, frame: int | None) -> Rows:
        for event, value in self._until("end_array"):
            yield from self._rows_of(read_one, self._value(event, value), frame)

    # --- objects whose rows are in a list within them

    def _tracked(self, uuid: str, event: str, value: Any) -> Generator[Annotation, None, Any]:
        """Read an object of a playback file, whose own values hold on each of its frames. Return an object without frames."""

        def row(track: dict[str, Any], item: Any) -> Annotation:
            if type(item) is not dict:
                return self._row(self._annotation, item)
            frame = _frame_number(item.get("key"))
            if frame is None:
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
        """Read the shapes that one camera of a frame saw; each row names its camera."""

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
        """Yield the rows of an object's list `name`, each with the object's other values. Return the object if it has no such list.

        The list is read as a stream once the `needed` values are known. Where they come after it, it waits in memory,
        and the bound on one value holds for all of it. A value that comes after the rows were made is in no row.
        """
        if event != "start_map":
            return self._value(event, value)
        others, waiting, listed = dict[str, Any](), list[Any](), False
        for _, key in self._until("end_map"):
            event, value = next(self._events)
            if key == name and event == "start_array":
                listed = True
                for event, value in self._until("end_array"):
                    item = self._value(event, value)
                    if needed <= others.keys():
                        yield row(others, item)
                    else:
                        waiting.append(item)
            elif listed and not waiting:
                self._count_unread(key)
                self._skip(event)
            else:
                others[key] = self._value(event, value)
        for item in waiting:
            yield row(others, item)
        return None if listed else others

    # --- point segmentations

    def _count_points(self, name: str) -> dict[int, dict[str, int]]:
        """Count points by object index and frame, from a list for each frame with the index of each point's object."""
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
        """Yield a row for each object, with its points by frame (frames without any are left out). Index 0 is no object."""
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

    def _rows_of(self, read_one: Read, item: Any, frame: int | None = None) -> Rows:
        """Yield the row of an object, or an event for each of its clips."""
        clips = events_of_clips(item)
        if clips is None:
            yield self._row(read_one, item, frame)
            return
        for clip in clips:
            yield self._row(self._event, clip, frame)

    def _row(self, read_one: Read, item: Any, frame: int | None = None) -> Annotation:
        if self._position == MAX_ROWS:
            raise UnreadableFile(f"it has more than {MAX_ROWS:,} annotations")
        row = read_one(item, self._position, frame)
        if frame is not None and frame > MAX_FRAME:
            row = row._replace(
                frame=None,
                warning=row.warning or f"annotation {row.position}: frame {frame} is beyond {MAX_FRAME:,}",
            )
        if self._shape_of_task is not None and names_no_shape(item):
            self._without_shape += 1
        self._position += 1
        self._source.release()
        return row

    def _until(self, end: str) -> Iterator[tuple[str, Any]]:
        """Iterate over a list or an object that was just opened: the first event of each value, or the keys."""
        return iter(self._events.__next__, (end, None))

    def _value(self, event: str, value: Any) -> Any:
        """Return the value that this event is or opens."""
        return build_value(event, value, self._events)

    def _skip(self, event: str) -> None:
        """Pass over a value that is not kept, however large it is."""
        self._source.unbounded()
        skip_value(event, self._events)
        self._source.release()

    def _keep_global_attributes(self, frame: int | None, attributes: Any) -> None:
        last = self.global_attributes[-1]["global_attributes"] if self.global_attributes else None
        if attributes is None or attributes == last or self._attributes_kept > MAX_GLOBAL_ATTRIBUTES:
            return
        self.global_attributes.append({"frame": frame, "global_attributes": attributes})
        self._attributes_kept += len(repr(attributes))
        if self._attributes_kept > MAX_GLOBAL_ATTRIBUTES:
            self.warnings.append(
                f"the global attributes after frame {frame} are in the file alone: they are too many"
            )


def _frame_number(key: Any) -> int | None:
    """Return the frame that a playback file's `key` names; None if it is no frame number."""
    if (type(key) is float and key.is_integer()) or (type(key) is str and key.isdecimal() and len(key) < 10):
        key = int(key)
    return key if type(key) is int and 0 <= key <= MAX_FRAME else None


def _segment(item: Any, position: int, frame: int | None = None) -> Annotation:
    """Read an object of a point segmentation: label, index and, if instances are separate, instance."""
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
