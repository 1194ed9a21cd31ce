"""Every log call has a fixed event text and its facts as fields, so that a collector can group and filter lines."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("app", "config", "exports", "models", "pipeline", "sandbox", "scale", "workers", "workflows")
SOURCES = sorted(
    [path for room in ROOMS for path in (ROOT / room).rglob("*.py")] + [*ROOT.glob("gunicorn*.py")],
)
METHODS = frozenset(("debug", "info", "warning", "error", "exception", "critical", "log"))
LOGGERS = frozenset(("log", "logger", "logging"))
KEYWORDS = frozenset(("extra", "exc_info"))


def log_calls(tree: ast.AST) -> list[ast.Call]:
    """Calls of a method of `log`, `logger` or `….log`."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METHODS
        and getattr(node.func.value, "id", getattr(node.func.value, "attr", None)) in LOGGERS
    ]


def fault_of(call: ast.Call) -> str | None:
    """Why a call breaks the rule, or None."""
    text, *values = call.args
    if not isinstance(text, ast.Constant) or not isinstance(text.value, str):
        return "the event text is not fixed"
    if values or "%" in text.value or "{" in text.value:
        return "values belong into extra"
    if unknown := {keyword.arg for keyword in call.keywords} - KEYWORDS:
        return f"takes {', '.join(sorted(KEYWORDS))}, not {', '.join(map(str, unknown))}"
    return None


def test_every_log_call_has_a_fixed_text_and_its_facts_as_fields() -> None:
    found = [(path, call) for path in SOURCES for call in log_calls(ast.parse(path.read_text()))]
    assert len(found) > 25
    faults = {
        f"{path.relative_to(ROOT)}:{call.lineno}": fault for path, call in found if (fault := fault_of(call))
    }
    assert faults == {}


@pytest.mark.parametrize(
    "code",
    [
        'log.warning("job %s failed", job_id)',
        'log.warning(f"job {job_id} failed")',
        'self.log.info("job {} failed".format(job_id))',
        'logger.error("failed", job=job_id)',
    ],
)
def test_values_within_the_text_are_found(code: str) -> None:
    (call,) = log_calls(ast.parse(code))
    assert fault_of(call)
