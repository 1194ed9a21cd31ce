import xml.etree.ElementTree as ElementTree

import pytest

from tests.workflows.kit import ROOT, step, workflow
from workflows.definition.loader import load
from workflows.definition.model import Workflow
from workflows.docs.graph import mermaid, svg

SHIPPED = [*load(ROOT / "config/demonstration").loaded, *load(ROOT / "examples").loaded]


def test_a_drawing_tells_what_starts_what_and_when() -> None:
    loaded = workflow(
        {
            "ask": step(
                after={"type": "polygonannotation", "project": "street"}, copies=3, on_error={"retry": 2}
            ),
            "together": {
                "after": {"step": "ask"},
                "join": {"quorum": "2 of 3", "reduce": "majority"},
                "when": "reduced.agreement < `0.5`",
                "create": step()["create"],
                "hold": True,
            },
        }
    )
    assert mermaid(loaded) == (
        "flowchart LR\n"
        '  n0(["polygonannotation<br>project: street"])\n'
        '  n1["ask<br>annotation<br>3 copies"]\n'
        '  n2["together<br>annotation<br>hold<br>majority<br>when reduced.agreement #60; #96;0.5#96;"]\n'
        "  n0 --> n1\n"
        '  n1 -.->|"error: 2×"| n1\n'
        '  n1 -.->|"join 67%"| n2\n'
    )


@pytest.mark.parametrize("loaded", SHIPPED, ids=lambda loaded: loaded.name)
def test_every_shipped_workflow_is_drawn_as_one_svg_with_all_of_its_steps(loaded: Workflow) -> None:
    root = ElementTree.fromstring(svg(loaded))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {step.name for step in loaded.steps} <= texts
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert 0 <= float(box.attrib["x"]) <= width - float(box.attrib["width"])
        assert 0 <= float(box.attrib["y"]) <= height - float(box.attrib["height"])


def test_boxes_of_a_drawing_do_not_lie_over_each_other() -> None:
    steps = {
        f"s{number}": step(after={"step": f"s{number // 2}"} if number else {"type": "polygonannotation"})
        for number in range(12)
    }
    steps["s0"] = step()
    root = ElementTree.fromstring(
        svg(
            workflow(
                {name: keys for name, keys in steps.items() if name != "s1"}
                | {"s1": step(after={"step": "s0"})}
            )
        )
    )
    boxes = [
        tuple(float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        for box in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    for one in boxes:
        for other in boxes:
            apart = (
                one[0] + one[2] <= other[0]
                or other[0] + other[2] <= one[0]
                or one[1] + one[3] <= other[1]
                or other[1] + other[3] <= one[1]
            )
            assert one == other or apart


def test_what_a_file_says_can_not_break_out_of_a_drawing() -> None:
    nasty = '</text><script>alert(1)</script>"]; click n0 href'
    loaded = workflow({"x": step(after={"type": "polygonannotation", "project": nasty})})
    assert "<script>" not in svg(loaded)
    assert "<script>" not in mermaid(loaded)
    assert nasty not in mermaid(loaded)
