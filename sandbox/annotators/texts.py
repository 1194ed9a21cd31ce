"""Named entities in a text, and transcribed documents."""

import itertools
import re
from typing import Any

from sandbox.annotators.assignment import Assignment, mapping, number, objects, sequence
from sandbox.annotators.attributes import answer_attributes
from sandbox.annotators.labels import label_names
from sandbox.annotators.prelabels import prelabels
from sandbox.annotators.shapes import Asked, Region, draw, nudge, place
from sandbox.annotators.words import sentence

PAGE = (1275, 1650)  # a letter page at 150 dots an inch
MOST_SPANS = 12


def answer_entities(assignment: Assignment) -> dict[str, Any]:
    """`annotations`: spans {id, start, end, text, label, attributes?} with text == document[start:end], apart from each
    other, and `relationships` {id, source_ref, target_ref, name?} between them. Spans of a hypothesis keep their ids.

    Offsets count characters (code points): a guess, as is `relationships` in the request, a list of texts or {name}.
    Source: docs, "Named Entity Recognition", callback format.
    """
    params, die = assignment.params, assignment.die
    start = prelabels(params)
    spans = objects(start.annotations)
    if start.more:
        spans = spans + _new_spans(assignment, spans, fewest=0 if spans else 1)
    names = label_names(params.get("relationships"))
    relationships = []
    for first, second in itertools.pairwise(spans):
        if "id" in first and "id" in second and die.random() < 0.4:
            named = {"name": die.choice(names)} if names else {}
            relationships.append(
                {"id": assignment.new_uuid(), "source_ref": first["id"], "target_ref": second["id"], **named}
            )
    return {"annotations": spans, "relationships": relationships}


def document_of(params: dict[str, Any]) -> str:
    text = params.get("text")
    if not isinstance(text, str) and params.get("attachment_type") == "text":
        text = params.get("attachment")
    return text if isinstance(text, str) else ""


def _new_spans(assignment: Assignment, taken: list[dict[str, Any]], fewest: int) -> list[dict[str, Any]]:
    """Runs of one or two words that touch none of those that are taken."""
    params, die = assignment.params, assignment.die
    text, labels = document_of(params), label_names(params.get("labels"))
    covered = [(number(span.get("start"), 0), number(span.get("end"), 0)) for span in taken]
    runs = [
        run
        for run in re.finditer(r"\w+(?: \w+)?", text)
        if not any(run.start() < end and start < run.end() for start, end in covered)
    ]
    if not runs or not labels:
        return []
    count = min(len(runs), die.randint(fewest, max(fewest, min(MOST_SPANS, 1 + len(runs) // 3))))
    return [
        _span(assignment, run.start(), run.end(), run.group(), die.choice(labels))
        for run in sorted(die.sample(runs, count), key=lambda run: run.start())
    ]


def _span(assignment: Assignment, start: int, end: int, text: str, label: str) -> dict[str, Any]:
    values = answer_attributes(assignment.params.get("annotation_attributes"), label, assignment.die)
    span = {"id": assignment.new_uuid(), "start": start, "end": end, "text": text, "label": label}
    return {**span, "attributes": values} if values else span


def fix_entities(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The response with one span labeled otherwise, or with one span more where there is but one label."""
    die, spans = assignment.die, objects(response.get("annotations"))
    labels = label_names(assignment.params.get("labels"))
    if spans and len(labels) > 1:
        at = die.randrange(len(spans))
        old = spans[at]
        label = die.choice([label for label in labels if label != old.get("label")])
        new = _span(assignment, old.get("start"), old.get("end"), old.get("text"), label)
        fixed = [*spans[:at], {**new, "id": old.get("id", new["id"])}, *spans[at + 1 :]]
        return {**response, "annotations": fixed}
    return {**response, "annotations": spans + _new_spans(assignment, spans, fewest=1)[:1]}


def pages(assignment: Assignment) -> list[dict[str, Any]]:
    """The `document_pages` of the task object: one an attachment, width and height in pixels."""
    params = assignment.params
    urls = sequence(params.get("attachments")) or [params.get("attachment")]
    sizes = [assignment.size(url, PAGE) for url in urls]
    return [{"width": width, "height": height} for width, height, _ in sizes]


def answer_document(assignment: Assignment) -> dict[str, Any]:
    """`annotations`: blocks with `page` (index into document_pages) and `location` {type: box, left, top, width, height,
    or type: polygon, vertices}, in pixels of the page. Of a hypothesis they come back a little moved.

    A guess: the rest of an item, here uuid, label (of the request's features) and text. Source: docs, "Document Pages".
    """
    params, start = assignment.params, prelabels(assignment.params)
    blocks = objects(start.annotations)
    if start.editable:
        blocks = [_nudged(assignment, block) for block in blocks]
    if start.more:
        count = assignment.die.randint(0, 1) if blocks else assignment.die.randint(2, 5)
        blocks = blocks + [_block(assignment) for _ in range(count)]
    of_image = answer_attributes(
        params.get("annotation_attributes"),
        None,
        assignment.die,
        known=start.global_attributes,
        of_image=True,
    )
    return {"annotations": blocks, **({"global_attributes": of_image} if of_image else {})}


def _block(assignment: Assignment) -> dict[str, Any]:
    params, die = assignment.params, assignment.die
    every = pages(assignment)
    page = die.randrange(len(every))
    canvas = _paper(every[page])
    kind = "polygon" if params.get("geometry") == "polygon" else "box"
    labels = label_names(params.get("features"))
    label = die.choice(labels) if labels else None
    block = {
        "uuid": assignment.new_uuid(),
        "page": page,
        "location": {"type": kind, **draw(kind, place(canvas, die), canvas, Asked(), die)},
        "text": sentence(die, 4),
    }
    values = answer_attributes(params.get("annotation_attributes"), label, die)
    return {**block, **({"label": label} if label else {}), **({"attributes": values} if values else {})}


def _paper(page: dict[str, Any]) -> Region:
    return Region(0, 0, page["width"], page["height"])


def _nudged(assignment: Assignment, block: dict[str, Any]) -> dict[str, Any]:
    every, page = pages(assignment), block.get("page")
    paper = _paper(every[page] if isinstance(page, int) and 0 <= page < len(every) else every[0])
    return {**block, "location": nudge(mapping(block.get("location")), paper, assignment.die)}


def fix_document(assignment: Assignment, response: dict[str, Any]) -> dict[str, Any]:
    """The response with one block read anew and moved, or with a first block where there is none."""
    blocks = objects(response.get("annotations"))
    if not blocks:
        return {**response, "annotations": [_block(assignment)]}
    at = assignment.die.randrange(len(blocks))
    again = {**_nudged(assignment, blocks[at]), "text": sentence(assignment.die, 5)}
    return {**response, "annotations": [*blocks[:at], again, *blocks[at + 1 :]]}
