"""Draws a workflow: as Mermaid text for pages that render it, and as SVG, without a program to install."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import NamedTuple

from workflows.definition.model import COMPLETED, After, Step, Workflow


class Node(NamedTuple):
    """A box of the drawing."""

    id: str
    lines: tuple[str, ...]  # title, then what it is and does
    outside: bool = False  # tasks from outside


class Edge(NamedTuple):
    """An arrow of the drawing, by the ids of its nodes."""

    start: str
    end: str
    label: str
    dashed: bool = False  # after an error, or a join


def drawing(workflow: Workflow) -> tuple[list[Node], list[Edge]]:
    """Return the steps of a workflow and what leads to them, in the order of the file."""
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for step in workflow.steps:
        for title in _outside(step):
            nodes.setdefault(f"from {title}", Node(f"from {title}", (title, *_wanted(step)), outside=True))
            edges.append(Edge(f"from {title}", step.name, _label(step)))
        nodes[step.name] = Node(step.name, (step.name, *_does(step)))
    for step in workflow.steps:
        for name in step.after.step if step.after else ():
            edges.append(Edge(name, step.name, _label(step), dashed=step.join is not None))
        if step.on_error.do == "start" and step.on_error.step:
            edges.append(Edge(step.name, step.on_error.step, "error", dashed=True))
        retries = [f"{state}: {end.times}×" for state, end in step.retries.items()]
        if retries:
            edges.append(Edge(step.name, step.name, ", ".join(retries), dashed=True))
    return list(nodes.values()), edges


def _outside(step: Step) -> list[str]:
    """Return what starts a step from outside of the workflow: inputs, or tasks of some types."""
    if step.start is not None:
        return ["inputs"]
    return [] if step.after is None or _others(step) else [" or ".join(step.after.type) or "any task"]


def _others(step: Step) -> list[str]:
    return [name for name in step.after.step if name != step.name] if step.after else []


def _wanted(step: Step) -> Iterator[str]:
    """Yield the filters of a step on tasks from outside."""
    after = step.after or After()
    for word, values in (
        ("columns", step.start.columns if step.start else ()),
        ("project", after.project),
        ("batch", after.batch),
        ("tags", after.tags),
    ):
        if values:
            yield f"{word}: {', '.join(values)}"


def _label(step: Step) -> str:
    """Return the label of the arrow to a step: states and the join."""
    states = step.after.state if step.after else ()
    parts = [" or ".join(states)] if states not in ((), (COMPLETED,)) else []
    if step.join is not None:
        wait = f"{step.join.quorum:.0%}" if step.join.quorum else step.join.wait or "all"
        parts.append(f"join {wait}")
    return "; ".join(parts)


def _does(step: Step) -> Iterator[str]:
    """Yield what a step creates, and from which results."""
    yield step.create.type if step.create else step.python or "stores the joined result"
    marks = [
        *([f"{step.copies} copies"] if (step.copies or 1) > 1 else []),
        *([f"{step.sample * 100:g}%"] if step.sample is not None else []),
        *(["crop"] if step.crop else []),
        *(["hold"] if step.hold else []),
        *(["dry run"] if step.dry_run else []),
    ]
    if marks:
        yield ", ".join(marks)
    if step.join is not None and step.join.reduce is not None:
        yield step.join.reduce.by
    if step.for_each is not None:
        yield f"each {step.for_each.list.source if step.for_each.list else step.for_each.kind}"
    if step.where is not None:
        yield f"where {step.where.source}"
    if step.when is not None:
        yield f"when {step.when.source}"


def mermaid(workflow: Workflow) -> str:
    """Return a Mermaid flowchart."""
    nodes, edges = drawing(workflow)
    ids = {node.id: f"n{number}" for number, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    for node in nodes:
        text = "<br>".join(_mermaid_text(line) for line in node.lines)
        lines.append(f'  {ids[node.id]}(["{text}"])' if node.outside else f'  {ids[node.id]}["{text}"]')
    for edge in edges:
        arrow = "-.->" if edge.dashed else "-->"
        label = f'|"{_mermaid_text(edge.label)}"|' if edge.label else ""
        lines.append(f"  {ids[edge.start]} {arrow}{label} {ids[edge.end]}")
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    """Return text for a Mermaid label, where a backtick or a hash has a meaning of its own."""
    return "".join(f"#{ord(character)};" if character in '"#`<>&|[]{}' else character for character in text)


# SVG: one column a distance from the start, top to bottom in the order of the file.

WIDTH, LINE, GAP_X, GAP_Y, MARGIN, LETTER = 250, 17, 120, 34, 24, 6.7
HEAD = 17  # from the top of a box to where arrows begin and end: its title
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1b2430}.title{font-weight:600}.label{font-size:11px;fill:#48566a}"
    "rect{fill:#f4f7fb;stroke:#5b6b82}.outside{fill:#fff;stroke-dasharray:2 3}"
    "path{fill:none;stroke:#5b6b82;stroke-width:1.3}.dashed{stroke-dasharray:5 4}"
)


Counts = Mapping[str, Mapping[str, int]]
"""Step → state → number of its follow-ups."""


def svg(workflow: Workflow, *, styled: bool = True, counts: Counts | None = None) -> str:
    """Return the drawing as one SVG document without scripts, fonts or links.

    With `counts` a box shows the states of its step's follow-ups, and an arrow how many came along it.
    """
    nodes, edges = drawing(workflow)
    if counts is not None:
        nodes, edges = _counted(nodes, edges, counts)
    columns = _columns(nodes, edges)
    places: dict[str, tuple[float, float, float]] = {}  # id → left, top, height
    bottoms: dict[int, float] = {}
    for node in nodes:
        column = columns[node.id]
        tall, top = LINE * len(node.lines) + 16, bottoms.get(column, MARGIN)
        places[node.id] = (MARGIN + column * (WIDTH + GAP_X), top, tall)
        bottoms[column] = top + tall + GAP_Y
    width = MARGIN + (max(columns.values(), default=0) + 1) * (WIDTH + GAP_X) - GAP_X + MARGIN
    height = (
        max(bottoms.values(), default=0)
        - GAP_Y
        + MARGIN
        + (GAP_Y if any(edge.start == edge.end for edge in edges) else 0)
    )
    drawn = [_edge(edge, places, number) for number, edge in enumerate(edges)]
    drawn += [_box(node, places[node.id]) for node in nodes]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
        f' role="img"><title>{escape(workflow.name)}</title>{f"<style>{STYLE}</style>" if styled else ""}'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8" /></marker></defs>' + "".join(drawn) + "</svg>\n"
    )


def _counted(nodes: list[Node], edges: list[Edge], counts: Counts) -> tuple[list[Node], list[Edge]]:
    """Add the counts to boxes, and to the arrow to a step where there is just one."""
    shown = [
        node
        if node.outside
        else node._replace(
            lines=(
                *node.lines,
                ", ".join(f"{number} {state}" for state, number in counts.get(node.id, {}).items())
                or "no follow-ups",
            )
        )
        for node in nodes
    ]
    arrows = Counter(edge.end for edge in edges if edge.start != edge.end)
    labeled = [
        edge._replace(label=f"{edge.label} {number}".strip())
        if edge.start != edge.end
        and arrows[edge.end] == 1
        and (number := sum(counts.get(edge.end, {}).values()))
        else edge
        for edge in edges
    ]
    return shown, labeled


def _columns(nodes: list[Node], edges: list[Edge]) -> dict[str, int]:
    """Return the column of each node: its distance from the start. An arrow back does not count."""
    columns = {node.id: 0 for node in nodes}
    order = {node.id: number for number, node in enumerate(nodes)}
    for _ in nodes:
        for start, end, *_rest in edges:
            if order[start] < order[end]:
                columns[end] = max(columns[end], columns[start] + 1)
    return columns


def _box(node: Node, place: tuple[float, float, float]) -> str:
    left, top, height = place
    kind = ' class="outside"' if node.outside else ""
    texts = "".join(
        f'<text x="{left + 12:.0f}" y="{top + 21 + LINE * number:.0f}"{TITLE if not number else ""}>{escape(_short(line, WIDTH - 20))}</text>'
        for number, line in enumerate(node.lines)
    )
    return f'<g><title>{escape(chr(10).join(node.lines))}</title><rect{kind} x="{left:.0f}" y="{top:.0f}" width="{WIDTH}" height="{height:.0f}" rx="7" />{texts}</g>'


TITLE = ' class="title"'


def _edge(edge: Edge, places: dict[str, tuple[float, float, float]], number: int) -> str:
    start_left, start_top, start_height = places[edge.start]
    end_left, end_top, end_height = places[edge.end]
    kind = ' class="dashed"' if edge.dashed else ""
    if edge.start == edge.end:
        x, y = start_left + WIDTH * 0.7, start_top + start_height
        path, at = f"M{x:.0f} {y:.0f}c0 24 -46 24 -46 2", (x - 44, y + 30)
    elif end_left > start_left:
        from_x, from_y = start_left + WIDTH, start_top + HEAD
        to_x, to_y, bend = end_left, end_top + HEAD, (end_left - start_left - WIDTH) / 2
        path = f"M{from_x:.0f} {from_y:.0f}C{from_x + bend:.0f} {from_y:.0f} {to_x - bend:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}"
        at = (to_x - GAP_X + 14, to_y - 6)
    else:  # back to an earlier or the same column: below both boxes
        from_x, from_y = start_left + WIDTH / 2, start_top + start_height
        to_x, to_y = end_left + WIDTH / 2, end_top + (end_height if end_top <= start_top else 0)
        low = max(from_y, to_y) + GAP_Y
        path = f"M{from_x:.0f} {from_y:.0f}C{from_x:.0f} {low:.0f} {to_x:.0f} {low:.0f} {to_x:.0f} {to_y:.0f}"
        at = ((from_x + to_x) / 2, low - 8)
    label = ""
    if edge.label:
        label = f'<text class="label" x="{at[0]:.0f}" y="{at[1]:.0f}"><title>{escape(edge.label)}</title>{escape(_short(edge.label, GAP_X - 16, 0.85))}</text>'
    return f'<path{kind} d="{path}" marker-end="url(#tip)" />{label}'


def _short(text: str, width: float, scale: float = 1.0) -> str:
    most = int(width / (LETTER * scale))
    return text if len(text) <= most else text[: most - 1] + "…"
