"""Reads the workflow files of a folder. A file with errors is not loaded, and reports all its errors; the others load."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from workflows.definition.crops import Crop
from workflows.definition.document import Document, FileProblem, read
from workflows.definition.fields import NAME_PATTERN, flatten_messages
from workflows.definition.model import (
    After,
    Create,
    Example,
    InvalidWorkflow,
    Join,
    Limits,
    OnEnd,
    Start,
    Step,
    Workflow,
    Workflows,
)
from workflows.definition.reading import read_regular_file
from workflows.definition.sections import StepSchema, WorkflowSchema
from workflows.definition.templates import compile_template
from workflows.definition.validation import Finding, validate

MAX_FILE_BYTES = 1024 * 1024
MAX_FILES = 200
MAX_STEPS = 100


def load(
    *directories: str | Path,
    python_modules: Collection[str] = (),
    previous: Workflows | None = None,
) -> Workflows:
    """Return every *.yaml and *.yml file of these folders, loaded. Never raises for the content of a file.

    python_modules: modules whose functions `python:` steps may name. previous: what was loaded before; of two files with
    the same workflow name, the one that was loaded before stays.
    """
    found = [file for directory in directories for file in _load_folder(Path(directory), python_modules)]
    invalid = [file for file in found if isinstance(file, InvalidWorkflow)]
    loaded, displaced = _unique_names([file for file in found if isinstance(file, Workflow)], previous)
    return Workflows(tuple(loaded), (*invalid, *displaced))


def _load_folder(folder: Path, python_modules: Collection[str]) -> Iterator[Workflow | InvalidWorkflow]:
    if not folder.is_dir():
        yield _invalid(folder, "is not a folder; set WORKFLOWS_DIR to the folder of the workflow files")
        return
    paths = sorted(
        path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.name[0] != "."
    )
    for path in paths[:MAX_FILES]:
        yield load_file(path, python_modules=python_modules)
    if len(paths) > MAX_FILES:
        message = f"has {len(paths)} workflow files; only the first {MAX_FILES} are loaded"
        yield _invalid(folder, message)


def _invalid(path: Path, message: str, name: str | None = None, field: str = "") -> InvalidWorkflow:
    return InvalidWorkflow(str(path), name, (FileProblem(str(path), 1, field, message),))


def _unique_names(
    found: Sequence[Workflow], previous: Workflows | None
) -> tuple[list[Workflow], list[InvalidWorkflow]]:
    """Return the workflows with one file for each name, and the other files as invalid.

    The file that was loaded before keeps the name; without one, the file that was written first.
    """
    live = {workflow.name: workflow.path for workflow in previous.loaded} if previous else {}
    owners: dict[str, Workflow] = {}
    for workflow in sorted(
        found, key=lambda one: (one.path != live.get(one.name), _written_at(one.path), one.path)
    ):
        owners.setdefault(workflow.name, workflow)
    displaced = [
        _invalid(
            Path(workflow.path),
            f"the name {workflow.name!r} is taken by {owners[workflow.name].path}; choose another name",
            workflow.name,
            "workflow",
        )
        for workflow in found
        if owners[workflow.name] is not workflow
    ]
    return [workflow for workflow in found if owners[workflow.name] is workflow], displaced


def _written_at(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except OSError:  # deleted since it was read
        return float("inf")


def load_file(path: str | Path, *, python_modules: Collection[str] = ()) -> Workflow | InvalidWorkflow:
    """Return one file, loaded. Never raises for its content."""
    path = Path(path)
    try:
        content = read_regular_file(path, path.parent, MAX_FILE_BYTES)
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        return _invalid(path, f"cannot be read: {error}")
    try:
        return parse(text, str(path), hashlib.sha256(content).hexdigest(), python_modules=python_modules)
    except (RecursionError, MemoryError) as error:  # one file must not disable the others
        return _invalid(path, f"is too large or nested too deeply ({type(error).__name__})")


def parse(
    text: str, path: str, digest: str | None = None, *, python_modules: Collection[str] = ()
) -> Workflow | InvalidWorkflow:
    """Return a workflow from its text. `path` is the file that errors name."""
    document = read(text)
    findings = [Finding(at, message, line=line) for at, line, message in document.faults]
    workflow = None
    if not document.faults or document.data is not None:
        digest = digest or hashlib.sha256(text.encode()).hexdigest()
        workflow = _workflow(document, path, digest, findings, python_modules)
    problems = {_problem(finding, document, path) for finding in findings if not finding.warning}
    if workflow is not None and not problems:
        return workflow
    name = document.data.get("workflow") if isinstance(document.data, dict) else None
    in_order = sorted(problems, key=lambda problem: (problem.line, problem.field, problem.message))
    return InvalidWorkflow(path, name if isinstance(name, str) else None, tuple(in_order))


def _problem(finding: Finding, document: Document, path: str) -> FileProblem:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in finding.path).lstrip(".")
    return FileProblem(path, finding.line or document.line(finding.path), field, finding.message)


def _workflow(
    document: Document, path: str, digest: str, findings: list[Finding], python_modules: Collection[str]
) -> Workflow | None:
    """Return the workflow that a document describes. Adds what is wrong to `findings`; None if anything is."""
    data = document.data
    if not isinstance(data, dict):
        findings.append(Finding((), "expected a mapping with `workflow` and `steps`"))
        return None
    fields = _loaded(WorkflowSchema(), data, (), findings)
    written = fields.get("steps", {})
    if len(written) > MAX_STEPS:
        findings.append(Finding(("steps",), f"has {len(written):,} steps; at most {MAX_STEPS} are possible"))
        return None
    if fields.get("steps") == {}:
        findings.append(Finding(("steps",), "has no steps; add at least one"))
    steps = {name: _step_fields(name, body, findings) for name, body in written.items()}
    findings += validate(fields.get("workflow") or "", steps, findings, python_modules)
    if any(not finding.warning for finding in findings):
        return None
    return Workflow(
        name=fields["workflow"],
        path=path,
        digest=digest,
        description=fields.get("description"),
        limits=Limits(**fields.get("limits", {})),
        steps=tuple(_step(name, found) for name, found in steps.items()),
        examples=tuple(_examples(fields.get("examples", ()))),
        warnings=tuple(_problem(finding, document, path) for finding in findings),
    )


def _examples(written: Iterable[Mapping[str, Any]]) -> Iterable[Example]:
    for number, example in enumerate(written, 1):
        yield Example(example.get("name", f"example {number}"), example["given"], tuple(example["expect"]))


def _step_fields(name: str, body: Any, findings: list[Finding]) -> dict[str, Any]:
    """Return the fields of a step: loaded, or null where the schema refused them."""
    at = ("steps", name)
    if not NAME_PATTERN.match(name):
        findings.append(Finding(at, f"expected a name of a-z, 0-9 and -, not {name!r}"))
    if not isinstance(body, dict):
        findings.append(Finding(at, "expected a mapping with `after` and `create`"))
        return {}
    return {**dict.fromkeys(body), **_loaded(StepSchema(), body, at, findings)}


def _loaded(
    schema: Any, data: Mapping[str, Any], at: tuple[str | int, ...], findings: list[Finding]
) -> dict[str, Any]:
    """Return the valid part of a section, so that it is checked further at the same time."""
    try:
        return dict(schema.load(data))
    except ValidationError as error:
        findings += [Finding((*at, *inner), message) for inner, message in flatten_messages(error.messages)]
        return dict(error.valid_data) if isinstance(error.valid_data, dict) else {}


_PLAIN_FIELDS = (
    "python", "description", "when", "for_each", "where", "mirror", "sample", "hold", "dry_run", "on_recall",
)  # fmt: skip


def _step(name: str, found: Mapping[str, Any]) -> Step:
    create, copies = found.get("create"), found.get("copies")
    variants = copies if isinstance(copies, list) else []
    return Step(
        name=name,
        after=After(**found["after"]) if "after" in found else None,
        start=Start(**found["start"]) if "start" in found else None,
        create=Create(create["type"], compile_template(create["params"])[0]) if create else None,
        crop=Crop(**found["crop"]) if "crop" in found else None,
        join=Join(**found["join"]) if "join" in found else None,
        each_response="repeat" in found,
        limits=Limits(**found.get("limits", {})),
        copies=len(variants) or copies,
        variants=tuple(compile_template(variant)[0] for variant in variants),
        on_error=_on_end("on_error", found),
        on_rejected=_on_end("on_rejected", found),
        **{key: found[key] for key in _PLAIN_FIELDS if key in found},
    )


def _on_end(key: str, step: Mapping[str, Any]) -> OnEnd:
    found = step.get(key) or {}
    if "start" in found:
        return OnEnd(key, "start", step=found["start"])
    if "retry" not in found:
        return OnEnd(key)
    params = compile_template(found["params"])[0] if "params" in found else None
    return OnEnd(key, "retry", found["retry"], params, found.get("mirror", ()))
