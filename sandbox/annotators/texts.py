"""Make responses for named entities and transcribed documents."""

import itertools
import re
from typing import Any

from sandbox.annotators.assignment import Assignment
from sandbox.annotators.attributes import choose_attributes
from sandbox.annotators.labels import label_names
from sandbox.annotators.prelabels import read_prelabels
from sandbox.annotators.shapes import GeometryLimits, Region, draw_shape, nudge_shape, random_region
from sandbox.annotators.values import as_dict, as_list, as_number, dicts_in
from sandbox.annotators.words import make_sentence

ASSUMED_PAGE_SIZE = (1275, 1650)  # a letter page at 150 dots an inch
MAX_SPANS = 12


def make_entities_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations`, spans {id, start, end, text, label, attributes?} that do not overlap, and `relationships`.

    Relationships are {id, source_ref, target_ref, name?}. Spans of a hypothesis keep their ids. Offsets count characters
    (code points): a guess, as is `relationships` in the request, a list of texts or {name}. Source: docs, "Named Entity
    Recognition", callback format.
    """
    params, rng = assignment.params, assignment.rng
    start = read_prelabels(params)
    spans = dicts_in(start.annotations)
    if start.more:
        spans = spans + _draw_spans(assignment, spans, fewest=0 if spans else 1)
    names = label_names(params.get("relationships"))
    relationships = []
    for first, second in itertools.pairwise(spans):
        if "id" in first and "id" in second and rng.random() < 0.4:
            named = {"name": rng.choice(names)} if names else {}
            relationships.append(
                {"id": assignment.new_uuid(), "source_ref": first["id"], "target_ref": second["id"], **named}
            )
    return {"annotations": spans, "relationships": relationships}


def document_text(params: dict[str, Any]) -> str:
    """Return the text of a task."""
    text = params.get("text")
    if not isinstance(text, str) and params.get("attachment_type") == "text":
        text = params.get("attachment")
    return text if isinstance(text, str) else ""


def _draw_spans(assignment: Assignment, taken: list[dict[str, Any]], fewest: int) -> list[dict[str, Any]]:
    """Label runs of one or two words that overlap no existing span."""
    params, rng = assignment.params, assignment.rng
    text, labels = document_text(params), label_names(params.get("labels"))
    covered = [(as_number(span.get("start"), 0), as_number(span.get("end"), 0)) for span in taken]
    runs = [
        run
        for run in re.finditer(r"\w+(?: \w+)?", text)
        if not any(run.start() < end and start < run.end() for start, end in covered)
    ]
    if not runs or not labels:
        return []
    count = min(len(runs), rng.randint(fewest, max(fewest, min(MAX_SPANS, 1 + len(runs) // 3))))
    return [
        _make_span(assignment, run.start(), run.end(), run.group(), rng.choice(labels))
        for run in sorted(rng.sample(runs, count), key=lambda run: run.start())
    ]


def _make_span(assignment: Assignment, start: int, end: int, text: str, label: str) -> dict[str, Any]:
    values = choose_attributes(assignment.params.get("annotation_attributes"), label, assignment.rng)
    span = {"id": assignment.new_uuid(), "start": start, "end": end, "text": text, "label": label}
    return {**span, "attributes": values} if values else span


_SPAN_PLACE = ("start", "end", "text")


def fix_entities_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Change the label of one span, or add a span if there is only one label."""
    rng, spans = assignment.rng, dicts_in(response.get("annotations"))
    labels = label_names(assignment.params.get("labels"))
    if spans and len(labels) > 1:
        at = rng.randrange(len(spans))
        old = spans[at]
        label = rng.choice([label for label in labels if label != old.get("label")])
        new = {**_make_span(assignment, 0, 0, "", label), **{key: old.get(key) for key in _SPAN_PLACE}}
        new["id"] = old.get("id", new["id"])
        return {**response, "annotations": [*spans[:at], new, *spans[at + 1 :]]}
    return {**response, "annotations": spans + _draw_spans(assignment, spans, fewest=1)[:1]}


def document_pages(assignment: Assignment) -> list[dict[str, Any]]:
    """Make the `document_pages` of the task object: width and height in pixels for each attachment."""
    params = assignment.params
    urls = as_list(params.get("attachments")) or [params.get("attachment")]
    sizes = [assignment.size(url, ASSUMED_PAGE_SIZE) for url in urls]
    return [{"width": width, "height": height} for width, height, _ in sizes]


def make_document_response(assignment: Assignment) -> dict[str, Any]:
    """Make `annotations`: blocks with `page` (index into document_pages) and `location`, in pixels of the page.

    `location` is {type: box, left, top, width, height} or {type: polygon, vertices}. Blocks of a hypothesis are moved a
    little. A guess: the other keys of a block, here uuid, label (of the request's features), text and, if enabled, a
    `confidence` from 0 to 1. Source: docs, "Document Pages".
    """
    params, start = assignment.params, read_prelabels(assignment.params)
    blocks = dicts_in(start.annotations)
    if start.editable:
        blocks = [_nudge_block(assignment, block) for block in blocks]
    if start.more:
        count = assignment.rng.randint(0, 1) if blocks else assignment.rng.randint(2, 5)
        blocks = blocks + [_draw_block(assignment) for _ in range(count)]
    of_image = choose_attributes(
        params.get("annotation_attributes"),
        None,
        assignment.rng,
        known=start.global_attributes,
        of_image=True,
    )
    return {"annotations": blocks, **({"global_attributes": of_image} if of_image else {})}


def _draw_block(assignment: Assignment) -> dict[str, Any]:
    params, rng = assignment.params, assignment.rng
    every = document_pages(assignment)
    page = rng.randrange(len(every))
    canvas = _page_canvas(every[page])
    kind = "polygon" if params.get("geometry") == "polygon" else "box"
    labels = label_names(params.get("features"))
    label = rng.choice(labels) if labels else None
    block = {
        "uuid": assignment.new_uuid(),
        "page": page,
        "location": {
            "type": kind,
            **draw_shape(kind, random_region(canvas, rng), canvas, GeometryLimits(), rng),
        },
        "text": make_sentence(rng, 4),
    }
    values = choose_attributes(params.get("annotation_attributes"), label, rng)
    block = {**block, **({"label": label} if label else {}), **({"attributes": values} if values else {})}
    return {**block, "confidence": round(rng.uniform(0.4, 1), 3)} if assignment.context.confidences else block


def _page_canvas(page: dict[str, Any]) -> Region:
    return Region(0, 0, page["width"], page["height"])


def _nudge_block(assignment: Assignment, block: dict[str, Any]) -> dict[str, Any]:
    every, page = document_pages(assignment), block.get("page")
    paper = _page_canvas(every[page] if isinstance(page, int) and 0 <= page < len(every) else every[0])
    return {**block, "location": nudge_shape(as_dict(block.get("location")), paper, assignment.rng)}


def fix_document_response(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """Move one block and change its text, or add a first block."""
    blocks = dicts_in(response.get("annotations"))
    if not blocks:
        return {**response, "annotations": [_draw_block(assignment)]}
    at = assignment.rng.randrange(len(blocks))
    again = {**_nudge_block(assignment, blocks[at]), "text": make_sentence(assignment.rng, 5)}
    return {**response, "annotations": [*blocks[:at], again, *blocks[at + 1 :]]}
