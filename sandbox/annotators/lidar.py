"""Sensor fusion: lidarannotation, lidarsegmentation, lidarlinking, lidartopdown and sensorfusion, all answered by files.

World coordinates as the frames have them: meters over meters_per_unit, x east, y north, z up.
"""

import math
from typing import Any

from sandbox.annotators.assignment import Assignment, mapping, number, objects, sequence, truth
from sandbox.annotators.attributes import answer_attributes
from sandbox.annotators.images import Wanted, annotate, wanted
from sandbox.annotators.labels import Label, label_set
from sandbox.annotators.prelabels import prelabels
from sandbox.annotators.shapes import Asked, Region

ASSUMED_FRAMES, ASSUMED_POINTS, ASSUMED_CAMERAS = 3, 1200, 2
FARTHEST = 60.0  # meters from the device
CAMERA = Region(0, 0, 1920, 1080)  # the size of a camera's image is nowhere in the request


def labels_of(params: dict[str, Any]) -> list[Label]:
    return label_set(
        params.get("labels") or params.get("objects_to_annotate"),
        parents=truth(params.get("allow_parent_labels")),
    )


def frame_count(params: dict[str, Any]) -> int:
    """One frame an attachment; of a task made from another (lidar_task) the frames that it names, else an assumed number."""
    named = sequence(params.get("attachments")) or sequence(params.get("lidar_task_frames"))
    return len(named) or ASSUMED_FRAMES


def answer_cuboids(assignment: Assignment) -> dict[str, Any]:
    """`annotations.url`: a list with `{cuboids}` for each frame. Source: docs, "LiDAR Annotation", callback format.

    That the response holds the link as `annotations.url` is a guess by analogy, and sensorfusion throughout.
    """
    return {"annotations": {"url": assignment.put_json(_cuboid_frames(assignment))}}


def _cuboid_frames(assignment: Assignment) -> list[dict[str, Any]]:
    params, die = assignment.params, assignment.die
    start = prelabels(params)
    given = sequence(assignment.read(start.annotations))
    if given:
        return [_nudged(assignment, frame) if start.editable else frame for frame in given]
    frames: list[dict[str, Any]] = [{"cuboids": []} for _ in range(frame_count(params))]
    for _ in range(die.randint(2, 5)):
        stationary, cuboid = die.random() < 0.4, _cuboid(assignment)
        cuboid["stationary"] = stationary
        pace = 0 if stationary else die.uniform(0.2, 1.5) / _unit(params)
        first = die.randrange(max(1, len(frames) // 2))
        for position, frame in enumerate(frames[first:]):
            # yaw 0 looks along +y and grows counter-clockwise, so ahead is (-sin, cos).
            ahead = pace * position
            x = cuboid["position"]["x"] - math.sin(cuboid["yaw"]) * ahead
            y = cuboid["position"]["y"] + math.cos(cuboid["yaw"]) * ahead
            place = {"x": round(x, 3), "y": round(y, 3), "z": cuboid["position"]["z"]}
            far = math.dist((x, y), (0, 0)) * _unit(params)
            if far > _reach(params):
                break
            frame["cuboids"].append({**cuboid, "position": place, "distance_to_device": round(far, 3)})
    return frames


def _unit(params: dict[str, Any]) -> float:
    meters = number(params.get("meters_per_unit"), 1)
    return meters if meters > 0 else 1


def _reach(params: dict[str, Any]) -> float:
    """How far from the device is annotated, meters."""
    most = number(params.get("max_distance_meters"))
    return min(most, FARTHEST) if most and most > 0 else FARTHEST


def _cuboid(assignment: Assignment) -> dict[str, Any]:
    """One cuboid at its first frame: position of its center, dimensions, yaw in radians (0 along +y, counter-clockwise)."""
    params, die, unit = assignment.params, assignment.die, _unit(assignment.params)
    labels = labels_of(params)
    bearing, far = die.uniform(0, 2 * math.pi), _reach(params) * die.uniform(0.1, 0.7)
    width, length, height = die.uniform(0.5, 2.2), die.uniform(0.5, 5.5), die.uniform(0.8, 2.6)
    label = die.choice(labels).name if labels else None
    tilt = {"pitch": round(die.uniform(-0.05, 0.05), 4), "roll": round(die.uniform(-0.05, 0.05), 4)}
    return {
        "uuid": assignment.new_uuid().upper(),
        "camera_used": die.choice([None, *range(ASSUMED_CAMERAS)]),
        **({"label": label} if label else {}),
        "position": {
            "x": round(far * math.cos(bearing) / unit, 3),
            "y": round(far * math.sin(bearing) / unit, 3),
            "z": round(height / 2 / unit, 3),
        },
        "dimensions": {
            axis: round(size / unit, 3) for axis, size in zip("xyz", (width, length, height), strict=True)
        },
        "yaw": round(die.uniform(-math.pi, math.pi), 4),
        **(tilt if truth(params.get("pitch_and_roll_enabled")) else {}),
        "numberOfPoints": die.randint(5, 900),
        "attributes": answer_attributes(params.get("annotation_attributes"), label, die),
    }


def _nudged(assignment: Assignment, frame: Any) -> dict[str, Any]:
    """A frame whose cuboids sit a few centimeters farther."""
    cuboids = []
    for cuboid in objects(mapping(frame).get("cuboids")):
        place = mapping(cuboid.get("position"))
        x = number(place.get("x"))
        if x is not None:
            step = round(assignment.die.uniform(0.02, 0.2) / _unit(assignment.params), 3)
            cuboid = {**cuboid, "position": {**place, "x": round(x + step, 6)}}
        cuboids.append(cuboid)
    return {**mapping(frame), "cuboids": cuboids}


def fix_cuboids(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    frames = sequence(assignment.read(response.get("annotations"))) or _cuboid_frames(assignment.unsalted())
    fixed = [_nudged(assignment, frame) for frame in frames]
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def answer_point_labels(assignment: Assignment) -> dict[str, Any]:
    """`point_segmentations.url`: `objects` (label, index from 1, instance where the label has them) and `point_objects`,
    an index for each point of each frame, 0 where unsegmented. Source: docs, "LiDAR Segmentation", response.

    `annotations.url`, which Scale marks as optional, has cuboids as for a lidarannotation.
    """
    return {
        "annotations": {"url": assignment.put_json(_cuboid_frames(assignment))},
        "point_segmentations": {"url": assignment.put_json(_point_labels(assignment))},
    }


def _point_labels(assignment: Assignment) -> dict[str, Any]:
    params, die = assignment.params, assignment.die
    segments: list[dict[str, Any]] = []
    for label in labels_of(params):
        for instance in range(die.randint(1, 3) if label.instance else 1):
            numbered = {"instance": instance + 1} if label.instance else {}
            segments.append({"label": label.name, "index": len(segments) + 1, **numbered})
    frames = sequence(params.get("attachments")) or [None] * frame_count(params)
    return {
        "objects": segments,
        "point_objects": [_frame_labels(assignment, frame, len(segments)) for frame in frames],
    }


def _frame_labels(assignment: Assignment, frame: Any, segments: int) -> list[int]:
    """One index a point, in runs as a turning device sees things; as many points as the frame has, if it can be read."""
    points = mapping(assignment.read_json(frame)).get("points")
    count = len(points) if isinstance(points, list) else ASSUMED_POINTS
    indexes: list[int] = []
    while len(indexes) < count:
        indexes += [assignment.die.randint(0, segments)] * assignment.die.randint(5, 80)
    return indexes[:count]


def fix_point_labels(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """A new file in which a run of points of each frame was given to another object."""
    content = assignment.read(response.get("point_segmentations"))
    key = "point_labels" if "point_labels" in mapping(content) else "point_objects"
    if not sequence(mapping(content).get(key)):
        content, key = _point_labels(assignment.unsalted()), "point_objects"
    segments = len(sequence(content.get("objects", content.get("labels"))))
    fixed = []
    for indexes in content[key]:
        indexes = list(sequence(indexes))
        if indexes:
            start = assignment.die.randrange(len(indexes))
            end = min(len(indexes), start + 20)
            indexes[start:end] = [(indexes[start] + 1) % (segments + 1)] * (end - start)
        fixed.append(indexes)
    url = assignment.put_json({**content, key: fixed})
    return {**response, "point_segmentations": {"url": url}, "is_customer_fix": True}


def answer_linking(assignment: Assignment) -> dict[str, Any]:
    """`annotations.url`: a list with `camera_responses` for each frame, each with the shapes seen by one camera, under the
    uuid of the cuboid that they show (`cuboid_uuid` replaces uuid); `not_in_lidar` where there is none.

    Source: docs, "LiDAR Linking", callback format. How many cameras and cuboids there are is not in the request: assumed.
    """
    return {"annotations": {"url": assignment.put_json(_camera_frames(assignment))}}


def _camera_frames(assignment: Assignment) -> list[dict[str, Any]]:
    die = assignment.die
    cuboids = [(assignment.new_uuid().upper(), die.random() < 0.2) for _ in range(die.randint(2, 4))]
    labels = labels_of(assignment.params)
    named = {uuid: die.choice(labels).name if labels else None for uuid, _ in cuboids}
    frames = []
    for _ in range(frame_count(assignment.params)):
        cameras = []
        for camera in range(ASSUMED_CAMERAS):
            seen = die.sample(cuboids, die.randint(1, len(cuboids)))
            shapes = [_linked(assignment, uuid, alone, named[uuid]) for uuid, alone in seen]
            cameras.append({"camera_used": camera, "annotations": shapes})
        frames.append({"camera_responses": cameras})
    return frames


def _linked(assignment: Assignment, uuid: str, alone: bool, label: str | None) -> dict[str, Any]:
    params = assignment.params
    kind = {"polygonannotation": "polygon", "lineannotation": "line", "pointannotation": "point"}.get(
        str(params.get("annotation_type")), "box"
    )
    want = assignment.die.choice(wanted(params, None) or [Wanted(kind, [], Asked())])
    shape = annotate(assignment, want._replace(labels=[label] if label else want.labels), CAMERA)
    del shape["uuid"]
    return {"cuboid_uuid": uuid, **shape, **({"not_in_lidar": True} if alone else {})}


def fix_linking(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """A new file in which the first shape of every camera was drawn anew."""
    frames = sequence(assignment.read(response.get("annotations"))) or _camera_frames(assignment.unsalted())
    fixed = []
    for frame in frames:
        cameras = []
        for camera in objects(mapping(frame).get("camera_responses")):
            shapes = objects(camera.get("annotations"))
            if shapes:
                uuid, alone = str(shapes[0].get("cuboid_uuid")), shapes[0].get("not_in_lidar") is True
                shapes = [_linked(assignment, uuid, alone, shapes[0].get("label")), *shapes[1:]]
            cameras.append({**camera, "annotations": shapes})
        fixed.append({**mapping(frame), "camera_responses": cameras})
    return {**response, "annotations": {"url": assignment.put_json(fixed)}, "is_customer_fix": True}


def answer_topdown(assignment: Assignment) -> dict[str, Any]:
    """`annotations.url`: a list of one `{annotations}`, the shapes drawn on the map that all frames make together, in world
    coordinates with z. A guess throughout: only the request (polygon, line and point geometries) is documented."""
    return {"annotations": {"url": assignment.put_json(_map(assignment))}}


def _map(assignment: Assignment) -> list[dict[str, Any]]:
    half = _reach(assignment.params) / _unit(assignment.params)
    ground = Region(-half, -half, half, half)
    wants = wanted(assignment.params, None) or [
        Wanted("polygon", [label.name for label in labels_of(assignment.params)], Asked())
    ]
    shapes = [
        annotate(assignment, want, ground) for want in wants for _ in range(assignment.die.randint(1, 3))
    ]
    return [{"annotations": [_on_ground(shape) for shape in shapes]}]


def _on_ground(shape: dict[str, Any]) -> dict[str, Any]:
    if "vertices" in shape:
        return {**shape, "vertices": [{**vertex, "z": 0.0} for vertex in shape["vertices"]]}
    return {**shape, "z": 0.0}


def fix_topdown(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The map drawn once more by another hand."""
    return {**response, **answer_topdown(assignment), "is_customer_fix": True}
