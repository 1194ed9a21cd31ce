"""What is wrong in a workflow file before it costs money, one module for each family of rules.

steps.py: the parts of a step. expressions.py: names, types and comparisons. requests.py: what Scale would refuse.
triggers.py: which step starts which.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from workflows.definition.validation import expressions, requests, steps, triggers
from workflows.definition.validation.finding import Finding, Steps

__all__ = ["Finding", "validate"]


def validate(
    workflow: str, written: Steps, refused: Sequence[Finding] = (), python_modules: Collection[str] = ()
) -> list[Finding]:
    """Return the errors and warnings of the steps, beyond what the schema has `refused`.

    written: step → its fields, as loaded; null where the schema refused them. python_modules: modules that `python:` may use.
    """
    present = {
        name: {key: value for key, value in fields.items() if value is not None}
        for name, fields in written.items()
    }
    has_inputs = any("start" in fields for fields in present.values())
    found = [
        finding.inside("steps", name)
        for name, fields in present.items()
        for finding in (
            *steps.check(workflow, name, written[name], present, python_modules),
            *expressions.check(fields, has_inputs=has_inputs),
            *requests.check(name, fields, present),
        )
    ]
    wrong = [finding.path for finding in (*refused, *found) if not finding.warning]
    if not any(
        path[:1] == ("steps",) and path[2:3] in ((), ("after",), ("start",), ("on_error",)) for path in wrong
    ):
        found += triggers.check_reachable(present)
    if not wrong:
        found += triggers.check_circles(present)
    return found
