"""Rules for what starts what: steps that nothing starts, and steps that start each other."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.definition.validation.finding import Fields, Finding, Steps, error_starter


def check_reachable(steps: Steps) -> Iterator[Finding]:
    """Yield the steps that no task from outside can ever start."""
    started: set[str] = set()
    while True:
        more = {name for name in steps if name not in started and _is_started(name, steps, started)}
        if not more:
            break
        started |= more
    for name in steps:
        if name not in started:
            message = "nothing starts this step: it waits for steps that wait for it; add a `type` or another `step`"
            yield Finding(("steps", name, "after"), message)


def _is_started(name: str, steps: Steps, started: set[str]) -> bool:
    after = steps[name].get("after")
    if any(error_starter(steps[other]) == name for other in started):
        return True
    if after is None:
        return "start" in steps[name]
    others = set(after.get("step", ())) - {name}
    return not others or bool(others & started)


def check_circles(steps: Steps) -> Iterator[Finding]:
    """Yield a warning for each two steps that match each other's tasks by type, which only the depth limit ends."""
    follows = {
        name: [other for other, fields in steps.items() if other != name and _matches(fields, steps[name])]
        for name in steps
    }
    for name, others in follows.items():
        for other in others:
            if name in follows[other] and name < other:
                message = f"`{name}` and `{other}` trigger each other until the depth limit; narrow `after`, or name the step"
                yield Finding(("steps", name, "after"), message, warning=True)


def _matches(fields: Fields, source: Fields) -> bool:
    """Return whether a step matches the tasks of another step that it does not name."""
    after, create = fields.get("after"), source.get("create") or {}
    if after is None or after.get("step") or create.get("type") not in after.get("type", ()):
        return False
    params = create.get("params")
    project = params.get("project") if isinstance(params, dict) else None
    return not ("project" in after and isinstance(project, str) and project not in after["project"])
