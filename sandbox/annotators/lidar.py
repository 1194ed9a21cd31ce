"""Make responses for sensor fusion: lidarannotation, lidarsegmentation, lidarlinking, lidartopdown and sensorfusion.

All are answered by files. Coordinates are those of the frames: meters over meters_per_unit, x east, y north, z up.
"""

import math
from typing import Any, NamedTuple

from sandbox.annotators.assignment import Assignment
from sandbox.annotators.attributes import choose_attributes
from sandbox.annotators.images import AnnotationSpec, annotation_specs, draw_annotation
from sandbox.annotators.labels import Label, label_set
from sandbox.annotators.prelabels import read_prelabels
from sandbox.annotators.shapes import GeometryLimits, Region
from sandbox.annotators.values import as_bool, as_dict, as_list, as_number, dicts_in, number_or_none

ASSUMED_FRAMES, ASSUMED_POINTS, ASSUMED_CAMERAS = 3, 1200, 2
DEFAULT_MAX_DISTANCE = 60.0  # meters from the device
CAMERA = Region(0, 0, 1920, 1080)  # the size of a camera's image is nowhere in the request


def task_labels(params: dict[str, Any]) -> list[Label]:
    """Return the label set of a lidar task."""
    return label_set(
        params.get("labels") or params.get("objects_to_annotate"),
        parents=as_bool(params.get("allow_parent_labels")),
    )


def frame_count(params: dict[str, Any]) -> int:
    """Return the number of attachments; for a task made from another (lidar_task) that of the frames it names, else an assumed one."""
    named = as_list(params.get("attachments")) or as_list(params.get("lidar_task_frames"))
    return len(named) or ASSUMED_FRAMES


def make_cuboid_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations.url`: a list with `{cuboids}` for each frame. Source: docs, "LiDAR Annotation", callback format.

    The key `annotations.url` is a guess by analogy; sensorfusion is a guess throughout.
    """
    return {"annotations": {"url": assignment.put_json(_cuboid_frames(assignment))}}


def _cuboid_frames(assignment: Assignment) -> list[dict[str, Any]]:
    params, rng = assignment.params, assignment.rng
    start = read_prelabels(params)
    given = as_list(assignment.read(start.annotations))
    if given:
        return [_nudge_cuboids(assignment, frame) if start.editable else frame for frame in given]
    frames: list[dict[str, Any]] = [{"cuboids": []} for _ in range(frame_count(params))]
    for _ in range(rng.randint(2, 5)):
        stationary, cuboid = rng.random() < 0.4, _draw_cuboid(assignment)
        cuboid["stationary"] = stationary
        pace = 0 if stationary else rng.uniform(0.2, 1.5) / _meters_per_unit(params)
        first = rng.randrange(max(1, len(frames) // 2))
        for position, frame in enumerate(frames[first:]):
            # yaw 0 looks along +y and grows counter-clockwise, so ahead is (-sin, cos).
            ahead = pace * position
            x = cuboid["position"]["x"] - math.sin(cuboid["yaw"]) * ahead
            y = cuboid["position"]["y"] + math.cos(cuboid["yaw"]) * ahead
            place = {"x": round(x, 3), "y": round(y, 3), "z": cuboid["position"]["z"]}
            far = math.dist((x, y), (0, 0)) * _meters_per_unit(params)
            if far > _max_distance(params):
                break
            frame["cuboids"].append({**cuboid, "position": place, "distance_to_device": round(far, 3)})
    return frames


def _meters_per_unit(params: dict[str, Any]) -> float:
    meters = as_number(params.get("meters_per_unit"), 1)
    return meters if meters > 0 else 1


def _max_distance(params: dict[str, Any]) -> float:
    """Return the distance from the device up to which objects are annotated, in meters."""
    most = number_or_none(params.get("max_distance_meters"))
    return min(most, DEFAULT_MAX_DISTANCE) if most and most > 0 else DEFAULT_MAX_DISTANCE


def _draw_cuboid(assignment: Assignment) -> dict[str, Any]:
    """Draw a cuboid for its first frame: center, dimensions, and yaw in radians (0 along +y, counter-clockwise)."""
    params, rng, unit = assignment.params, assignment.rng, _meters_per_unit(assignment.params)
    labels = task_labels(params)
    bearing, far = rng.uniform(0, 2 * math.pi), _max_distance(params) * rng.uniform(0.1, 0.7)
    width, length, height = rng.uniform(0.5, 2.2), rng.uniform(0.5, 5.5), rng.uniform(0.8, 2.6)
    label = rng.choice(labels).name if labels else None
    tilt = {"pitch": round(rng.uniform(-0.05, 0.05), 4), "roll": round(rng.uniform(-0.05, 0.05), 4)}
    return {
        "uuid": assignment.new_uuid().upper(),
        "camera_used": rng.choice([None, *range(ASSUMED_CAMERAS)]),
        **({"label": label} if label else {}),
        "position": {
            "x": round(far * math.cos(bearing) / unit, 3),
            "y": round(far * math.sin(bearing) / unit, 3),
            "z": round(height / 2 / unit, 3),
        },
        "dimensions": {
            axis: round(size / unit, 3) for axis, size in zip("xyz", (width, length, height), strict=True)
        },
        "yaw": round(rng.uniform(-math.pi, math.pi), 4),
        **(tilt if as_bool(params.get("pitch_and_roll_enabled")) else {}),
        "numberOfPoints": rng.randint(5, 900),
        "attributes": choose_attributes(params.get("annotation_attributes"), label, rng),
    }


def _nudge_cuboids(assignment: Assignment, frame: Any) -> dict[str, Any]:
    """Move the cuboids of a frame by a few centimeters."""
    cuboids = []
    for cuboid in dicts_in(as_dict(frame).get("cuboids")):
        place = as_dict(cuboid.get("position"))
        x = number_or_none(place.get("x"))
        if x is not None:
            step = round(assignment.rng.uniform(0.02, 0.2) / _meters_per_unit(assignment.params), 3)
            cuboid = {**cuboid, "position": {**place, "x": round(x + step, 6)}}
        cuboids.append(cuboid)
    return {**as_dict(frame), "cuboids": cuboids}


def fix_cuboid_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Make a new file in which every cuboid is moved a little."""
    frames = as_list(assignment.read(response.get("annotations"))) or _cuboid_frames(assignment.unsalted())
    fixed = [_nudge_cuboids(assignment, frame) for frame in frames]
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def make_point_label_response(assignment: Assignment) -> dict[str, Any]:
    """Make `point_segmentations.url`, and `annotations.url` with cuboids, which Scale marks as optional.

    The former has `objects` (label, index from 1, instance if the label has instances) and `point_objects`, an index for each
    point of each frame, 0 if unsegmented. Source: docs, "LiDAR Segmentation", response.
    """
    return {
        "annotations": {"url": assignment.put_json(_cuboid_frames(assignment))},
        "point_segmentations": {"url": assignment.put_json(_label_points(assignment))},
    }


def _label_points(assignment: Assignment) -> dict[str, Any]:
    params, rng = assignment.params, assignment.rng
    segments: list[dict[str, Any]] = []
    for label in task_labels(params):
        for instance in range(rng.randint(1, 3) if label.instance else 1):
            numbered = {"instance": instance + 1} if label.instance else {}
            segments.append({"label": label.name, "index": len(segments) + 1, **numbered})
    frames = as_list(params.get("attachments")) or [None] * frame_count(params)
    return {
        "objects": segments,
        "point_objects": [_label_frame(assignment, frame, len(segments)) for frame in frames],
    }


def _label_frame(assignment: Assignment, frame: Any, segments: int) -> list[int]:
    """Return one index for each point, in runs as a rotating device scans; the number of points is read or assumed."""
    points = as_dict(assignment.read_json(frame)).get("points")
    count = len(points) if isinstance(points, list) else ASSUMED_POINTS
    indexes: list[int] = []
    while len(indexes) < count:
        indexes += [assignment.rng.randint(0, segments)] * assignment.rng.randint(5, 80)
    return indexes[:count]


def fix_point_label_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Make a new file in which a run of points of each frame belongs to another object."""
    content = assignment.read(response.get("point_segmentations"))
    key = "point_labels" if "point_labels" in as_dict(content) else "point_objects"
    if not as_list(as_dict(content).get(key)):
        content, key = _label_points(assignment.unsalted()), "point_objects"
    segments = len(as_list(content.get("objects", content.get("labels"))))
    fixed = []
    for indexes in content[key]:
        indexes = list(as_list(indexes))
        if indexes:
            start = assignment.rng.randrange(len(indexes))
            end = min(len(indexes), start + 20)
            indexes[start:end] = [(indexes[start] + 1) % (segments + 1)] * (end - start)
        fixed.append(indexes)
    url = assignment.put_json({**content, key: fixed})
    return {**response, "point_segmentations": {"url": url}, "is_customer_fix": True}


def make_linking_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations.url`: a list with `camera_responses` for each frame, each with the shapes that one camera sees.

    A shape has the uuid of the cuboid that it shows as `cuboid_uuid`, one of the `lidar_task` if that has been completed;
    `not_in_lidar` marks objects without a cuboid.
    The number of cameras is not in the request: it is assumed. Source: docs, "LiDAR Linking", callback format.
    """
    return {"annotations": {"url": assignment.put_json(_annotate_cameras(assignment))}}


class _VisibleObject(NamedTuple):
    """Describe an object that a camera may see: the uuid of its cuboid, or a new one if there is no cuboid."""

    uuid: str
    label: str | None
    not_in_lidar: bool


def _annotate_cameras(assignment: Assignment) -> list[dict[str, Any]]:
    rng = assignment.rng
    frames = []
    for visible in _visible_objects(assignment):
        cameras = []
        for camera in range(ASSUMED_CAMERAS):
            seen = rng.sample(visible, rng.randint(1, len(visible))) if visible else []
            shapes = [_draw_linked_shape(assignment, *seen_object) for seen_object in seen]
            cameras.append({"camera_used": camera, "annotations": shapes})
        frames.append({"camera_responses": cameras})
    return frames


def _visible_objects(assignment: Assignment) -> list[list[_VisibleObject]]:
    """Return the objects of each frame: the cuboids of the `lidar_task` and one without a cuboid, else assumed ones."""
    rng, labels = assignment.rng, task_labels(assignment.params)

    def new_object(not_in_lidar: bool) -> _VisibleObject:
        label = rng.choice(labels).name if labels else None
        return _VisibleObject(assignment.new_uuid().upper(), label, not_in_lidar)

    source = _source_frames(assignment)
    if not source:
        assumed = [new_object(rng.random() < 0.2) for _ in range(rng.randint(2, 4))]
        return [assumed] * frame_count(assignment.params)
    other = [new_object(True)] if rng.random() < 0.5 else []
    return [[*map(_visible_cuboid, dicts_in(as_dict(frame).get("cuboids"))), *other] for frame in source]


def _visible_cuboid(cuboid: dict[str, Any]) -> _VisibleObject:
    label = cuboid.get("label")
    return _VisibleObject(str(cuboid.get("uuid")), label if isinstance(label, str) else None, False)


def _source_frames(assignment: Assignment) -> list[Any]:
    """Return the frames with cuboids that the `lidar_task` annotated; with `lidar_task_frames` those it selects."""
    task = assignment.context.read_task(str(assignment.params.get("lidar_task")))
    frames = as_list(assignment.read(as_dict(as_dict(task).get("response")).get("annotations")))
    selected = as_list(assignment.params.get("lidar_task_frames"))
    if not selected:
        return frames
    return [frames[number] for number in selected if isinstance(number, int) and 0 <= number < len(frames)]


def _draw_linked_shape(
    assignment: Assignment, uuid: str, label: str | None, not_in_lidar: bool
) -> dict[str, Any]:
    params = assignment.params
    kind = {"polygonannotation": "polygon", "lineannotation": "line", "pointannotation": "point"}.get(
        str(params.get("annotation_type")), "box"
    )
    spec = assignment.rng.choice(
        annotation_specs(params, None) or [AnnotationSpec(kind, [], GeometryLimits())]
    )
    shape = draw_annotation(assignment, spec._replace(labels=[label] if label else spec.labels), CAMERA)
    del shape["uuid"]
    return {"cuboid_uuid": uuid, **shape, **({"not_in_lidar": True} if not_in_lidar else {})}


def fix_linking_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Make a new file in which the first shape of every camera is drawn again."""
    frames = as_list(assignment.read(response.get("annotations"))) or _annotate_cameras(assignment.unsalted())
    fixed = []
    for frame in frames:
        cameras = []
        for camera in dicts_in(as_dict(frame).get("camera_responses")):
            shapes = dicts_in(camera.get("annotations"))
            if shapes:
                uuid, label = str(shapes[0].get("cuboid_uuid")), shapes[0].get("label")
                not_in_lidar = shapes[0].get("not_in_lidar") is True
                shapes = [_draw_linked_shape(assignment, uuid, label, not_in_lidar), *shapes[1:]]
            cameras.append({**camera, "annotations": shapes})
        fixed.append({**as_dict(frame), "camera_responses": cameras})
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def make_topdown_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations.url`: a list of one `{annotations}` with shapes on the map of all frames, in their coordinates with z.

    A guess throughout: only the request (polygon, line and point geometries) is documented.
    """
    return {"annotations": {"url": assignment.put_json(_draw_map(assignment))}}


def _draw_map(assignment: Assignment) -> list[dict[str, Any]]:
    half = _max_distance(assignment.params) / _meters_per_unit(assignment.params)
    ground = Region(-half, -half, half, half)
    specs = annotation_specs(assignment.params, None) or [
        AnnotationSpec("polygon", [label.name for label in task_labels(assignment.params)], GeometryLimits())
    ]
    shapes = [
        draw_annotation(assignment, spec, ground)
        for spec in specs
        for _ in range(assignment.rng.randint(1, 3))
    ]
    return [{"annotations": [_add_ground_height(shape) for shape in shapes]}]


def _add_ground_height(shape: dict[str, Any]) -> dict[str, Any]:
    if "vertices" in shape:
        return {**shape, "vertices": [{**vertex, "z": 0.0} for vertex in shape["vertices"]]}
    return {**shape, "z": 0.0}


def fix_topdown_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Draw the map again."""
    return {**response, **make_topdown_response(assignment), "is_customer_fix": True}
