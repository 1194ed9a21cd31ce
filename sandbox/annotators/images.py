"""Image annotation: annotation, point-, line-, polygon- and cuboidannotation, and imageannotation with all geometries."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sandbox.annotators.assignment import Assignment, mapping, number, objects, truth
from sandbox.annotators.attributes import answer_attributes, link
from sandbox.annotators.labels import label_names
from sandbox.annotators.prelabels import prelabels
from sandbox.annotators.shapes import KINDS, Asked, Region, asked, bounds, draw, nudge, place

GEOMETRY_OF_TYPE = {
    "annotation": "box",
    "pointannotation": "point",
    "lineannotation": "line",
    "polygonannotation": "polygon",
    "cuboidannotation": "cuboid",
}
MOST_ANNOTATIONS = 1000


class Wanted(NamedTuple):
    """One geometry that a task asks for. No labels: the shapes stay unlabeled."""

    kind: str
    labels: list[str]
    asked: Asked


def wanted(params: dict[str, Any], kind: str | None) -> list[Wanted]:
    """The geometries of a task: `kind` for the types that have a single one, else those of `geometries`.

    The former label their shapes only with `with_labels`; cuboids, which have no such parameter, always do, and so
    do nested labels: the published example returns leaf labels although it says with_labels false.
    """
    parents = truth(params.get("allow_parent_labels"))
    if kind is None:
        return [
            Wanted(kind, label_names(geometry.get("objects_to_annotate"), parents=parents), asked(geometry))
            for kind, geometry in mapping(params.get("geometries")).items()
            if kind in KINDS and isinstance(geometry, dict)
        ]
    described = params.get("objects_to_annotate")
    labeled = kind == "cuboid" or objects(described) or truth(params.get("with_labels"))
    return [Wanted(kind, label_names(described, parents=parents) if labeled else [], asked(params))]


def canvas_of(assignment: Assignment, attachment: Any, *, holding: list[dict[str, Any]]) -> Region:
    """Where may be drawn: the image and its padding, so that coordinates can be negative or beyond the image.

    Where the image's size is only assumed, what is already drawn on it (`holding`) tells that it is larger.
    """
    params = assignment.params
    width, height, known = assignment.size(attachment)
    image = Region(0, 0, width, height)
    if not known:
        for annotation in holding:
            image = image.around(bounds(annotation) or image)
        image = Region(0, 0, max(1, image.right), max(1, image.bottom))
    pad = max(0, number(params.get("padding"), 0))
    across = max(0, number(params.get("paddingX"), pad))
    down = max(0, number(params.get("paddingY"), pad))
    return Region(-across, -down, image.right + across, image.bottom + down)


def layered(layers: Any) -> list[dict[str, Any]]:
    """The annotation objects of a Layers object, whatever their plural key."""
    return [drawn for listed in mapping(layers).values() for drawn in objects(listed)]


def annotate(
    assignment: Assignment,
    want: Wanted,
    canvas: Region,
    *,
    key: str = "type",
    around: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One new annotation object; `key` is the key that holds its geometry's name. `around`: a pre-drawn shape that it
    follows, in place and, where the task knows it, in label."""
    die = assignment.die
    hint = bounds(around) if around else None
    region = hint and Region(hint.left - 2, hint.top - 2, hint.right + 2, hint.bottom + 2).within(canvas)
    if not region or not region.width or not region.height:
        region = place(canvas, die)
    annotation: dict[str, Any] = {}
    if want.labels:
        told = around.get("label") if around else None
        annotation["label"] = told if told in want.labels else die.choice(want.labels)
    annotation["uuid"] = assignment.new_uuid()
    annotation |= draw(want.kind, region, canvas, want.asked, die)
    annotation[key] = want.kind
    return with_attributes(assignment, annotation)


def with_attributes(assignment: Assignment, annotation: dict[str, Any]) -> dict[str, Any]:
    """The annotation with `attributes` answered; without the key when none applies. Allowed values that it has stay."""
    held = bounds(annotation) or Region(0, 0, 0, 0)
    definitions = assignment.params.get("annotation_attributes")
    known = mapping(annotation.get("attributes"))
    values = answer_attributes(
        definitions, annotation.get("label"), assignment.die, extent=(held.width, held.height), known=known
    )
    defined = mapping(definitions)
    values = {name: value for name, value in known.items() if name not in defined} | values
    bare = {name: value for name, value in annotation.items() if name != "attributes"}
    return {**bare, "attributes": values} if values else bare


def answer_image(assignment: Assignment) -> dict[str, Any]:
    """Response of an image task: `annotations`, `global_attributes`, and `links` where the task is an imageannotation.

    The older types answer in the live form of 2020 and later (uuid, geometry, is_customer_fix), which holds all keys of
    the published examples. That the others carry `geometry` as box tasks do is a guess.
    """
    params, type_name = assignment.params, assignment.type
    key = "geometry" if type_name in GEOMETRY_OF_TYPE else "type"
    start, drawn = prelabels(params), layered(params.get("layers"))
    given = objects(start.annotations)
    canvas = canvas_of(assignment, params.get("attachment"), holding=given + drawn)
    annotations = [take_up(assignment, annotation, canvas, key, start.editable) for annotation in given]
    if start.more:
        annotations += _new_annotations(assignment, canvas, key, drawn, already=len(annotations))
    link(
        annotations if start.editable else annotations[len(given) :],
        params.get("annotation_attributes"),
        assignment.die,
    )
    of_image = attributes_of_image(assignment, start.global_attributes)
    if type_name in GEOMETRY_OF_TYPE:
        return {"annotations": annotations, "global_attributes": of_image, "is_customer_fix": False}
    return {
        "links": _links(assignment, annotations),
        "annotations": annotations,
        "global_attributes": of_image,
    }


def attributes_of_image(assignment: Assignment, known: dict[str, Any]) -> dict[str, Any]:
    definitions = assignment.params.get("annotation_attributes")
    return answer_attributes(definitions, None, assignment.die, known=known, of_image=True)


def _new_annotations(
    assignment: Assignment, canvas: Region, key: str, drawn: list[dict[str, Any]], already: int
) -> Iterator[dict[str, Any]]:
    params, die = assignment.params, assignment.die
    wants = wanted(params, GEOMETRY_OF_TYPE.get(assignment.type))
    if not wants:
        return
    fewest, most = annotation_limits(params)
    usual = die.randint(0, 1) if already else max(len(drawn), die.randint(2, 5), len(wants))
    count = min(max(usual, fewest - already), most - already)
    for position in range(count):
        around = drawn[position] if position < len(drawn) else None
        yield annotate(assignment, wants[position % len(wants)], canvas, key=key, around=around)


def annotation_limits(params: dict[str, Any]) -> tuple[int, int]:
    """min_annotations and max_annotations, inclusive; 0 means no limit, a contradiction is settled for the maximum."""
    most = int(number(params.get("max_annotations"), 0))
    most = most if 0 < most < MOST_ANNOTATIONS else MOST_ANNOTATIONS
    return min(max(0, int(number(params.get("min_annotations"), 0))), most), most


def take_up(
    assignment: Assignment, annotation: dict[str, Any], canvas: Region, key: str, editable: bool
) -> dict[str, Any]:
    """A prelabel in the result: its uuid kept or made, its geometry named by `key`, and moved a little if editable."""
    kind = annotation.get("type", annotation.get("geometry"))
    named = {"uuid": annotation.get("uuid") or assignment.new_uuid()} | _drawn(annotation)
    if kind is not None:
        named[key] = kind
    return with_attributes(assignment, nudge(named, canvas, assignment.die)) if editable else named


def _links(assignment: Assignment, annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Links between annotations. A guess: no published page shows an item of the response's `links`."""
    links = []
    for name, rules in mapping(assignment.params.get("links")).items():
        for rule in rules if isinstance(rules, list) else [rules]:
            rule = mapping(rule)
            starts = _with_labels(annotations, rule.get("from_allowed_labels"))
            ends = _with_labels(annotations, rule.get("to_allowed_labels"))
            pair = next(((a, b) for a in starts for b in ends if a is not b), None)
            if pair:
                links.append(
                    {
                        "label": name,
                        "from": pair[0]["uuid"],
                        "to": pair[1]["uuid"],
                        "is_bidirectional": truth(rule.get("is_bidirectional")),
                    }
                )
    return links


def _with_labels(annotations: list[dict[str, Any]], allowed: Any) -> list[dict[str, Any]]:
    return [a for a in annotations if not isinstance(allowed, list) or a.get("label") in allowed]


def fix_image(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The response after a customer's fix: shapes moved, one added or taken away; locked base_annotations stay."""
    params, die = assignment.params, assignment.die
    key = "geometry" if assignment.type in GEOMETRY_OF_TYPE else "type"
    start = prelabels(params)
    given, annotations = objects(start.annotations), objects(response.get("annotations"))
    canvas = canvas_of(
        assignment, params.get("attachment"), holding=given + layered(params.get("layers")) + annotations
    )
    locked = [] if start.editable else [_drawn(annotation) for annotation in given]
    free = [i for i, annotation in enumerate(annotations) if _drawn(annotation) not in locked]
    fewest, most = annotation_limits(params)
    wants = wanted(params, GEOMETRY_OF_TYPE.get(assignment.type))

    touched = set(die.sample(free, min(len(free), die.randint(1, 2))))
    fixed = [nudge(a, canvas, die) if i in touched else a for i, a in enumerate(annotations)]
    if start.more and wants and len(fixed) < most and (not free or die.random() < 0.5):
        fixed.append(annotate(assignment, die.choice(wants), canvas, key=key))
    else:
        spare = [i for i in free if i not in touched and not _named_elsewhere(response, annotations[i])]
        if len(spare) > 1 and len(fixed) > fewest:
            del fixed[die.choice(spare)]
    return {**response, "annotations": fixed, "is_customer_fix": True}


def _drawn(annotation: dict[str, Any]) -> dict[str, Any]:
    """An annotation without what Scale adds to it or names otherwise."""
    return {name: value for name, value in annotation.items() if name not in ("uuid", "type", "geometry")}


def _named_elsewhere(response: dict[str, Any], annotation: dict[str, Any]) -> bool:
    """Whether a linked attribute or a link names this annotation, which then can't be taken away alone."""
    uuid = annotation.get("uuid")
    return isinstance(uuid, str) and str(response).count(uuid) > 1
