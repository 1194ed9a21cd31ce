"""Collect the pages of the documentation site in a folder, and write the ones that come from the code.

The pages keep their places of the repository, so that their links work in both. `make docs` runs it.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from app.application import create_app
from app.commands import SECTIONS, make_commands
from config import load_settings
from sandbox.examples import EXAMPLES
from scale.task_types import TASK_TYPES, TaskType

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "deploy", "examples")
FILES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    ".env.example",
    "compose.yaml",
)
FILES += ("app.json", "Procfile", "Dockerfile")
INDEXES = {
    "docs/decisions": "Decisions",
    "docs/examples": "Examples",
    "docs/task-types": "Each task type",
    "examples": "Workflow files",
    "deploy/prometheus": "Alert rules",
    "deploy/grafana": "Dashboard",
}
"""Folders without a README of their own, and the title of their list."""
FOLDER_LINK = re.compile(r"\]\(((?!https?:)[\w./-]+)/\)")
"""A link to a folder leads to its README."""
CONFIGURATION = Path(__file__).parent / "mkdocs.yml"


def collect(folder: Path) -> None:
    """Write every page, and the files that pages link to, into an empty folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *FOLDERS, *FILES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if name.startswith("docs/site/") or not (ROOT / name).is_file():
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    app = create_app(load_settings({"SECRET_KEY": "-", "WORKFLOWS_DIR": "nowhere"}))
    document = app.test_client().get("/api/openapi.json").json
    write(folder / "docs/reference/commands.md", commands())
    write(folder / "docs/reference/api.md", operations(document))
    for one in TASK_TYPES:
        write(folder / f"docs/task-types/{one.name}.md", task_type(one))
    for name, title in INDEXES.items():
        write(folder / name / "README.md", index(folder / name, title))
    for page in folder.rglob("*.md"):
        page.write_text(FOLDER_LINK.sub(r"](\1/README.md)", page.read_text()))


def write(path: Path, lines: Iterator[str]) -> None:
    """Write a page, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def index(folder: Path, title: str) -> Iterator[str]:
    """List the pages of a folder by their titles, and its other files by their names."""
    yield f"# {title}\n"
    for page in sorted(folder.iterdir()):
        if page.suffix == ".md":
            heading = page.read_text().partition("\n")[0].removeprefix("# ")
            yield f"- [{heading}]({page.name})"
        else:
            yield f"- [{page.name}]({page.name})"


def commands() -> Iterator[str]:
    """Describe each command by its own help."""
    yield "# Commands\n"
    yield "What `weighbridge COMMAND --help` prints. Every command that shows something takes `--json`.\n"
    every = make_commands()
    root = click.Context(every, info_name="weighbridge")
    for title, section in SECTIONS.items():
        yield f"## {title}\n"
        for name in section:
            yield from _command(root, every.commands[name])


def _command(parent: click.Context, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent, max_content_width=100)
    yield f"### `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _command(context, child)


def operations(document: Mapping[str, Any]) -> Iterator[str]:
    """Describe each operation of the REST API by its OpenAPI document."""
    yield "# REST API\n"
    yield f"{document['info']['description'].strip()}\n"
    yield "A running service has this document at `/api/openapi.json`, and a page to try it at `/api/docs`."
    yield "Send a token with each request: `Authorization: Bearer TOKEN`.\n"
    by_tag: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in ("get", "post", "put", "patch", "delete"):
                shared = item.get("parameters", [])
                lines = _operation(document, method, path, operation, shared)
                by_tag.setdefault(operation.get("tags", [""])[0], []).extend(lines)
    for tag, lines in by_tag.items():
        yield f"## {tag}\n"
        yield from lines


def _operation(
    document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any], shared: list[Any]
) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`\n"
    yield f"{operation.get('summary', '')}\n\n{operation.get('description', '')}".strip() + "\n"
    parameters = [_resolved(document, one) for one in (*shared, *operation.get("parameters", ()))]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = _resolved(document, body).get("properties", {})
    if parameters or fields:
        yield "| name | in | type | meaning |\n|---|---|---|---|"
        for one in parameters:
            yield _row(one["name"], one["in"], one.get("schema", {}), one.get("description"))
        for name, schema in fields.items():
            yield _row(name, "body", _resolved(document, schema), schema.get("description"))
        yield ""
    answers = ", ".join(f"{status}" for status in operation.get("responses", {}) if status.isdigit())
    yield f"Answers: {answers}.\n"


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        found: Any = document
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _row(name: str, place: str, schema: Mapping[str, Any], meaning: str | None) -> str:
    kind = schema.get("type", "")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    if values := schema.get("enum"):
        kind = ", ".join(f"`{value}`" for value in values if value is not None)
    text = " ".join((meaning or "").split()).replace("|", "\\|")
    return f"| `{name}` | {place} | {kind} | {text} |"


def task_type(one: TaskType) -> Iterator[str]:
    """Describe a task type: its request, a recorded callback, and what is stored of it."""
    layers = "yes" if one.request and one.request.takes_layers else "no"
    yield f"# `{one.name}`\n\n{one.description}.\n"
    if (ROOT / "docs/pictures/task-types" / f"{one.name}.webp").exists():
        yield f"![{one.description}](../pictures/task-types/{one.name}.webp)\n"
    yield f"- **Result**: {one.result_form}\n- **Rows**: {', '.join(one.yields) or 'none'}\n- **Takes layers**: {layers}\n"
    if example := EXAMPLES.get(one.name):
        yield "## Request\n\nThe sandbox takes this request:\n"
        yield f"```json\n{json.dumps({'type': one.name, **example}, indent=2)}\n```\n"
        yield "On one line of a file `first.jsonl`, it can be submitted:\n"
        yield "```console\n$ weighbridge tasks submit first.jsonl --check\n$ weighbridge tasks submit first.jsonl\n```\n"
        yield "## Workflow\n\nThis file asks a person about each result:\n"
        yield f"```yaml\n{yaml.safe_dump(_workflow(one.name), sort_keys=False)}```\n"
    recorded = sorted((ROOT / "tests/payloads" / one.name).glob("*.expected.json"))
    for expected in recorded[:1]:
        body = expected.with_name(expected.name.replace(".expected", "")).read_text()
        yield f"## Callback\n\n```json\n{_short(body)}\n```\n"
        yield f"What is read from it:\n\n```json\n{_short(expected.read_text())}\n```\n"


MAX_SHOWN_CHARACTERS = 4000


def _short(text: str) -> str:
    shown = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return shown if len(shown) <= MAX_SHOWN_CHARACTERS else f"{shown[:MAX_SHOWN_CHARACTERS]}\n…"


def _workflow(name: str) -> dict[str, Any]:
    params = {
        "instruction": "Is this result good?",
        "attachment_type": "text",
        "attachment": "${{ task.task_id }}",
    }
    params |= {"categories": ["good", "bad"]}
    step = {"after": {"type": name}, "create": {"type": "categorization", "params": params}}
    return {"workflow": f"check-{name}", "steps": {"check": step}}


def configuration(pages: Path) -> str:
    """Return mkdocs.yml with the pages of each folder that its navigation names."""

    def expand(found: re.Match[str]) -> str:
        indent, title, folder = found.groups()
        names = sorted(page.name for page in (pages / folder).glob("*.md"))
        lines = [f"{indent}- {title}:", *(f"{indent}    - {folder}{name}" for name in names)]
        return "\n".join(lines)

    return re.sub(r"^( *)- ([^:\n]+): ([\w/-]+/)$", expand, CONFIGURATION.read_text(), flags=re.MULTILINE)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    collect(target / "pages")
    (target / "mkdocs.yml").write_text(configuration(target / "pages"))
