"""Reads the workflow files of a folder. A file with an error is set aside whole, with all its errors; the others load."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from workflows.definition.crops import Crop
from workflows.definition.document import Document, FileProblem, read
from workflows.definition.expressions import compile_template
from workflows.definition.fields import NAME_PATTERN, flatten_messages
from workflows.definition.model import (
    After,
    Create,
    Example,
    InvalidWorkflow,
    Join,
    Limits,
    OnError,
    Step,
    Workflow,
    Workflows,
)
from workflows.definition.sections import StepSchema, WorkflowSchema
from workflows.definition.validation import Finding, check
from workflows.docs.examples import read_given

MAX_FILE_BYTES = 1024 * 1024


def load(directory: str | Path) -> Workflows:
    """Every *.yaml and *.yml of a folder, by file name. Never raises for what stands in the files."""
    folder = Path(directory)
    if not folder.is_dir():
        missing = FileProblem(
            str(folder), 1, "", "is not a folder: WORKFLOWS_DIR must name the folder of the workflow files"
        )
        return Workflows(invalid=(InvalidWorkflow(str(folder), None, (missing,)),))
    loaded: dict[str, Workflow] = {}
    invalid: list[InvalidWorkflow] = []
    for path in sorted(
        file for file in folder.iterdir() if file.suffix in (".yaml", ".yml") and file.is_file()
    ):
        workflow = load_file(path)
        if isinstance(workflow, InvalidWorkflow):
            invalid.append(workflow)
        elif workflow.name in loaded:
            first = loaded[workflow.name].path
            taken = FileProblem(
                str(path), 1, "workflow", f"the name {workflow.name!r} belongs to {first} already"
            )
            invalid.append(InvalidWorkflow(str(path), workflow.name, (taken,)))
        else:
            loaded[workflow.name] = workflow
    return Workflows(tuple(loaded.values()), tuple(invalid))


def load_file(path: str | Path) -> Workflow | InvalidWorkflow:
    """One file."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"is larger than {MAX_FILE_BYTES} bytes")
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        return InvalidWorkflow(str(path), None, (FileProblem(str(path), 1, "", f"can't be read: {error}"),))
    return parse(text, str(path), hashlib.sha256(content).hexdigest())


def parse(text: str, path: str, digest: str | None = None) -> Workflow | InvalidWorkflow:
    """A workflow from its text; `path` is what errors name, and where the payloads of its examples are looked for."""
    document = read(text)
    findings = [Finding(at, message, line=line) for at, line, message in document.faults]
    workflow = None
    if not document.faults or document.data is not None:
        workflow = _workflow(document, path, digest or hashlib.sha256(text.encode()).hexdigest(), findings)
    problems = {_problem(finding, document, path) for finding in findings if not finding.warning}
    if workflow is not None and not problems:
        return workflow
    name = document.data.get("workflow") if isinstance(document.data, dict) else None
    in_order = sorted(problems, key=lambda problem: (problem.line, problem.field, problem.message))
    return InvalidWorkflow(path, name if isinstance(name, str) else None, tuple(in_order))


def _problem(finding: Finding, document: Document, path: str) -> FileProblem:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in finding.path).lstrip(".")
    return FileProblem(path, finding.line or document.line(finding.path), field, finding.message)


def _workflow(document: Document, path: str, digest: str, findings: list[Finding]) -> Workflow | None:
    """The workflow that a document describes. None when it is none; what is wrong is added to `findings`."""
    data = document.data
    if not isinstance(data, dict):
        findings.append(Finding((), "expected a mapping with `workflow` and `steps`"))
        return None
    fields = _loaded(WorkflowSchema(), data, (), findings)
    written = fields.get("steps", {})
    steps: dict[str, dict[str, Any]] = {}
    for name, body in written.items():
        at = ("steps", name)
        if not NAME_PATTERN.match(name):
            findings.append(Finding(at, f"expected a name of a-z, 0-9 and -, not {name!r}"))
        if isinstance(body, dict):
            steps[name] = {**dict.fromkeys(body), **_loaded(StepSchema(), body, at, findings)}
        else:
            findings.append(Finding(at, "expected a mapping with `after` and `create`"))
            steps[name] = {}
    if fields.get("steps") == {}:
        findings.append(Finding(("steps",), "has no steps"))
    examples = []
    for index, found in enumerate(fields.get("examples", ())):
        if not {"given", "expect"} <= found.keys():
            continue  # it was refused above
        try:
            examples.append(
                Example(
                    found.get("name", f"example {index + 1}"),
                    read_given(found["given"], path),
                    tuple(found["expect"]),
                )
            )
        except (ValueError, OSError) as error:
            findings.append(Finding(("examples", index, "given"), str(error)))
    findings += check(fields.get("workflow") or "", steps, findings)
    if any(not finding.warning for finding in findings):
        return None
    return Workflow(
        name=fields["workflow"],
        path=path,
        digest=digest,
        description=fields.get("description"),
        limits=Limits(**fields.get("limits", {})),
        steps=tuple(_step(name, found) for name, found in steps.items()),
        examples=tuple(examples),
        warnings=tuple(_problem(finding, document, path) for finding in findings),
    )


def _loaded(
    schema: Any, data: Mapping[str, Any], at: tuple[str | int, ...], findings: list[Finding]
) -> dict[str, Any]:
    """What of a section is right, so that it is checked further in the same go."""
    try:
        return dict(schema.load(data))
    except ValidationError as error:
        findings += [Finding((*at, *inner), message) for inner, message in flatten_messages(error.messages)]
        return dict(error.valid_data) if isinstance(error.valid_data, dict) else {}


def _step(name: str, found: Mapping[str, Any]) -> Step:
    plain = (
        "python", "description", "when", "for_each", "where", "mirror", "copies", "sample", "hold", "dry_run", "on_recall",
    )  # fmt: skip
    create, on_error = found.get("create"), found.get("on_error")
    return Step(
        name=name,
        after=After(**found["after"]) if "after" in found else None,
        create=Create(create["type"], compile_template(create["params"])[0]) if create else None,
        crop=Crop(**found["crop"]) if "crop" in found else None,
        join=Join(**found["join"]) if "join" in found else None,
        each_response="repeat" in found,
        limits=Limits(**found.get("limits", {})),
        on_error=_on_error(on_error) if on_error else OnError(),
        **{key: found[key] for key in plain if key in found},
    )


def _on_error(found: Mapping[str, Any]) -> OnError:
    if "start" in found:
        return OnError("start", step=found["start"])
    params = compile_template(found["params"])[0] if "params" in found else None
    return OnError("retry", found["retry"], params, found.get("mirror", ()))
