"""Make responses for image annotation: one geometry (annotation, polygonannotation …) or several (imageannotation)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sandbox.annotators.assignment import Assignment
from sandbox.annotators.attributes import choose_attributes, link_attributes
from sandbox.annotators.labels import label_names
from sandbox.annotators.prelabels import read_prelabels
from sandbox.annotators.shapes import (
    GEOMETRIES,
    GeometryLimits,
    Region,
    bounding_box,
    draw_shape,
    geometry_limits,
    nudge_shape,
    random_region,
)
from sandbox.annotators.values import as_bool, as_dict, as_number, dicts_in

GEOMETRY_OF_TYPE = {
    "annotation": "box",
    "pointannotation": "point",
    "lineannotation": "line",
    "polygonannotation": "polygon",
    "cuboidannotation": "cuboid",
}
MAX_ANNOTATIONS = 1000


class AnnotationSpec(NamedTuple):
    """Describe one geometry that a task asks for. Without labels the shapes are unlabeled."""

    kind: str
    labels: list[str]
    limits: GeometryLimits


def annotation_specs(params: dict[str, Any], kind: str | None) -> list[AnnotationSpec]:
    """Return the geometries of a task: `geometry` for the types with a single one, else those of `geometries`.

    Types with a single geometry label their shapes only with `with_labels`. Cuboids have no such parameter and are always
    labeled, and so are nested labels: the published example returns leaf labels although it says with_labels false.
    """
    parents = as_bool(params.get("allow_parent_labels"))
    if kind is None:
        return [
            AnnotationSpec(
                kind,
                label_names(geometry.get("objects_to_annotate"), parents=parents),
                geometry_limits(geometry),
            )
            for kind, geometry in as_dict(params.get("geometries")).items()
            if kind in GEOMETRIES and isinstance(geometry, dict)
        ]
    described = params.get("objects_to_annotate")
    labeled = kind == "cuboid" or dicts_in(described) or as_bool(params.get("with_labels"))
    return [
        AnnotationSpec(
            kind, label_names(described, parents=parents) if labeled else [], geometry_limits(params)
        )
    ]


def drawing_canvas(assignment: Assignment, attachment: Any, *, existing: list[dict[str, Any]]) -> Region:
    """Return the region to draw in: the image and its padding, so coordinates can be negative or beyond the image.

    If the size of the image is only assumed, it is extended to contain the `existing` annotations.
    """
    params = assignment.params
    width, height, known = assignment.size(attachment)
    image = Region(0, 0, width, height)
    if not known:
        for annotation in existing:
            image = image.around(bounding_box(annotation) or image)
        image = Region(0, 0, max(1, image.right), max(1, image.bottom))
    pad = max(0, as_number(params.get("padding"), 0))
    across = max(0, as_number(params.get("paddingX"), pad))
    down = max(0, as_number(params.get("paddingY"), pad))
    return Region(-across, -down, image.right + across, image.bottom + down)


def layer_annotations(layers: Any) -> list[dict[str, Any]]:
    """Return the annotations of a Layers object, whatever their plural key."""
    return [drawn for listed in as_dict(layers).values() for drawn in dicts_in(listed)]


def draw_annotation(
    assignment: Assignment,
    spec: AnnotationSpec,
    canvas: Region,
    *,
    key: str = "type",
    guide: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Draw one new annotation; `key` is the key for the name of its geometry.

    `guide` is an annotation of the layers: the new one follows its place and, if the task has it, its label.
    """
    rng = assignment.rng
    hint = bounding_box(guide) if guide else None
    region = hint and Region(hint.left - 2, hint.top - 2, hint.right + 2, hint.bottom + 2).within(canvas)
    if not region or not region.width or not region.height:
        region = random_region(canvas, rng)
    annotation: dict[str, Any] = {}
    if spec.labels:
        label = guide.get("label") if guide else None
        annotation["label"] = label if label in spec.labels else rng.choice(spec.labels)
    annotation["uuid"] = assignment.new_uuid()
    annotation |= draw_shape(spec.kind, region, canvas, spec.limits, rng)
    annotation[key] = spec.kind
    return add_attributes(assignment, annotation)


def add_attributes(assignment: Assignment, annotation: dict[str, Any]) -> dict[str, Any]:
    """Return the annotation with its `attributes`; without the key if none applies. Allowed values that it has are kept."""
    held = bounding_box(annotation) or Region(0, 0, 0, 0)
    definitions = assignment.params.get("annotation_attributes")
    known = as_dict(annotation.get("attributes"))
    values = choose_attributes(
        definitions, annotation.get("label"), assignment.rng, extent=(held.width, held.height), known=known
    )
    defined = as_dict(definitions)
    values = {name: value for name, value in known.items() if name not in defined} | values
    bare = {name: value for name, value in annotation.items() if name != "attributes"}
    return {**bare, "attributes": values} if values else bare


def make_image_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations`, `global_attributes` and, for an imageannotation, `links`.

    The other types use the live form of 2020 and later (uuid, geometry, is_customer_fix), which contains all keys of the
    published examples. That all of them have `geometry` as box tasks do is a guess.
    """
    params, type_name = assignment.params, assignment.type
    key = "geometry" if type_name in GEOMETRY_OF_TYPE else "type"
    start, drawn = read_prelabels(params), layer_annotations(params.get("layers"))
    given = dicts_in(start.annotations)
    canvas = drawing_canvas(assignment, params.get("attachment"), existing=given + drawn)
    annotations = [
        adopt_prelabel(assignment, annotation, canvas, key, start.editable) for annotation in given
    ]
    if start.more:
        annotations += _draw_new_annotations(assignment, canvas, key, drawn, already=len(annotations))
    link_attributes(
        annotations if start.editable else annotations[len(given) :],
        params.get("annotation_attributes"),
        assignment.rng,
    )
    of_image = image_attributes(assignment, start.global_attributes)
    if type_name in GEOMETRY_OF_TYPE:
        return {"annotations": annotations, "global_attributes": of_image, "is_customer_fix": False}
    return {
        "links": _make_links(assignment, annotations),
        "annotations": annotations,
        "global_attributes": of_image,
    }


def image_attributes(assignment: Assignment, known: dict[str, Any]) -> dict[str, Any]:
    """Choose the attributes of the whole image."""
    definitions = assignment.params.get("annotation_attributes")
    return choose_attributes(definitions, None, assignment.rng, known=known, of_image=True)


def _draw_new_annotations(
    assignment: Assignment, canvas: Region, key: str, drawn: list[dict[str, Any]], already: int
) -> Iterator[dict[str, Any]]:
    params, rng = assignment.params, assignment.rng
    specs = annotation_specs(params, GEOMETRY_OF_TYPE.get(assignment.type))
    if not specs:
        return
    minimum, maximum = annotation_limits(params)
    usual = rng.randint(0, 1) if already else max(len(drawn), rng.randint(2, 5), len(specs))
    count = min(max(usual, minimum - already), maximum - already)
    for position in range(count):
        guide = drawn[position] if position < len(drawn) else None
        yield draw_annotation(assignment, specs[position % len(specs)], canvas, key=key, guide=guide)


def annotation_limits(params: dict[str, Any]) -> tuple[int, int]:
    """Return min_annotations and max_annotations, inclusive. 0 means no limit; the maximum wins over a larger minimum."""
    most = int(as_number(params.get("max_annotations"), 0))
    most = most if 0 < most < MAX_ANNOTATIONS else MAX_ANNOTATIONS
    return min(max(0, int(as_number(params.get("min_annotations"), 0))), most), most


def adopt_prelabel(
    assignment: Assignment, annotation: dict[str, Any], canvas: Region, key: str, editable: bool
) -> dict[str, Any]:
    """Return a prelabel as an annotation: with a uuid, its geometry under `key`, and moved a little if editable."""
    kind = annotation.get("type", annotation.get("geometry"))
    named = {"uuid": annotation.get("uuid") or assignment.new_uuid()} | _without_bookkeeping(annotation)
    if kind is not None:
        named[key] = kind
    return add_attributes(assignment, nudge_shape(named, canvas, assignment.rng)) if editable else named


def _make_links(assignment: Assignment, annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make links between annotations. A guess: no published page shows an item of `links`."""
    links = []
    for name, rules in as_dict(assignment.params.get("links")).items():
        for rule in rules if isinstance(rules, list) else [rules]:
            rule = as_dict(rule)
            starts = _with_labels(annotations, rule.get("from_allowed_labels"))
            ends = _with_labels(annotations, rule.get("to_allowed_labels"))
            pair = next(((a, b) for a in starts for b in ends if a is not b), None)
            if pair:
                links.append(
                    {
                        "label": name,
                        "from": pair[0]["uuid"],
                        "to": pair[1]["uuid"],
                        "is_bidirectional": as_bool(rule.get("is_bidirectional")),
                    }
                )
    return links


def _with_labels(annotations: list[dict[str, Any]], allowed: Any) -> list[dict[str, Any]]:
    return [a for a in annotations if not isinstance(allowed, list) or a.get("label") in allowed]


def fix_image_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Make the response of a fix: shapes moved, one added or removed; locked base_annotations stay."""
    params, rng = assignment.params, assignment.rng
    key = "geometry" if assignment.type in GEOMETRY_OF_TYPE else "type"
    start = read_prelabels(params)
    given, annotations = dicts_in(start.annotations), dicts_in(response.get("annotations"))
    canvas = drawing_canvas(
        assignment,
        params.get("attachment"),
        existing=given + layer_annotations(params.get("layers")) + annotations,
    )
    locked = [] if start.editable else [_without_bookkeeping(annotation) for annotation in given]
    free = [i for i, annotation in enumerate(annotations) if _without_bookkeeping(annotation) not in locked]
    minimum, maximum = annotation_limits(params)
    specs = annotation_specs(params, GEOMETRY_OF_TYPE.get(assignment.type))

    touched = set(rng.sample(free, min(len(free), rng.randint(1, 2))))
    fixed = [nudge_shape(a, canvas, rng) if i in touched else a for i, a in enumerate(annotations)]
    if start.more and specs and len(fixed) < maximum and (not free or rng.random() < 0.5):
        fixed.append(draw_annotation(assignment, rng.choice(specs), canvas, key=key))
    else:
        spare = [i for i in free if i not in touched and not _is_referenced(response, annotations[i])]
        if len(spare) > 1 and len(fixed) > minimum:
            del fixed[rng.choice(spare)]
    return {**response, "annotations": fixed, "is_customer_fix": True}


def _without_bookkeeping(annotation: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation without the keys that Scale adds or renames."""
    return {name: value for name, value in annotation.items() if name not in ("uuid", "type", "geometry")}


def _is_referenced(response: dict[str, Any], annotation: dict[str, Any]) -> bool:
    """Return whether a linked attribute or a link refers to this annotation, so that it cannot be removed alone."""
    uuid = annotation.get("uuid")
    return isinstance(uuid, str) and str(response).count(uuid) > 1
