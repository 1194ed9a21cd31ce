"""Endpoints of self-serve projects: /v1/teams, /v1/evaluation_tasks, /v1/training_tasks and /v1/studio."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from sandbox.engine import batch_actions, lifecycle
from sandbox.engine.parameters import check_request
from sandbox.engine.tasks import inherited_params
from sandbox.errors import ScaleError, invalid
from sandbox.storage import clock
from sandbox.storage.store import Batch, Group, Project, QualityTask, Teammate, object_id
from sandbox.web.api.request_context import current_account, current_sandbox
from sandbox.web.bodies import read_object

team = Blueprint("team", __name__, url_prefix="/v1")

ROLES = ("labeler", "member", "manager", "admin")
OWNER = "owner@sandbox.example"


@team.get("/teams")
def list_teammates() -> Response:
    """List the members of the team."""
    with current_sandbox().store.write() as session:
        return jsonify([_teammate_object(mate) for mate in _list_teammates(session)])


@team.post("/teams/invite")
@team.post("/teams/set_role")
def set_role() -> Response:
    """Set the role of members; `invite` also adds new ones."""
    body = read_object(request)
    emails, role = _string_list(body, "emails"), body.get("team_role")
    if role not in ROLES:
        raise invalid(f'"team_role" must be one of [{", ".join(ROLES)}]')
    with current_sandbox().store.write() as session:
        if request.path.endswith("set_role"):
            known = {mate.email for mate in _list_teammates(session)}
            for email in emails:
                if email not in known:
                    raise ScaleError(404, f'Teammate "{email}" not found.')
        for email in emails:
            _get_or_create_teammate(session, email).role = role
        return jsonify([_teammate_object(mate) for mate in _list_teammates(session)])


@team.post("/evaluation_tasks/<name:type_name>")
@team.post("/training_tasks/<name:type_name>")
def create_quality_task(type_name: str) -> dict[str, Any]:
    """Create a task with a known response, to evaluate or train labelers."""
    body = read_object(request)
    expected = body.pop("expected_response", None)
    initial = body.pop("initial_response", None)
    if expected is None:
        raise invalid('"expected_response" is required')
    with current_sandbox().store.write() as session:
        project, batch, inherited = inherited_params(session, current_account(), body)
        checked = check_request(type_name, body, inherited)
        kind = "evaluation" if "/evaluation_tasks/" in request.path else "training"
        now = clock.now()
        document = {
            "id": object_id(),
            "type": type_name,
            "created_at": clock.format_timestamp(now),
            "project": project.name if project else None,
            "batch": batch.name if batch else None,
            "instruction": checked.general.get("instruction"),
            "metadata": checked.general.get("metadata", {}),
            "params": checked.params,
            "expected_response": expected,
            "initial_response": initial,
        }
        document = {name: value for name, value in document.items() if value is not None}
        session.add(
            QualityTask(
                id=document["id"],
                account=current_account(),
                kind=kind,
                type=type_name,
                document=document,
                created_at=now,
            )
        )
    return document


@team.get("/studio/assignments")
def list_assignments() -> dict[str, Any]:
    """Return the assigned projects of each member."""
    with current_sandbox().store.write() as session:
        return _assignments(session)


@team.post("/studio/assignments/add")
def add_assignments() -> dict[str, Any]:
    """Assign projects to members."""
    return _change_assignments(
        lambda current, given: [*current, *(name for name in given if name not in current)]
    )


@team.post("/studio/assignments/remove")
def remove_assignments() -> dict[str, Any]:
    """Remove assigned projects from members."""
    return _change_assignments(lambda current, given: [name for name in current if name not in given])


@team.get("/studio/projects/<name:project>/groups")
def list_groups(project: str) -> Response:
    """List the groups of labelers of a project, oldest first."""
    with current_sandbox().store.write() as session:
        found = batch_actions.find_project(session, current_account(), project)
        groups = session.scalars(
            select(Group).where(Group.project_id == found.id).order_by(Group.created_at, Group.id)
        )
        return jsonify([_group_object(session, group) for group in groups])


@team.post("/studio/projects/<name:project>/groups")
def create_group(project: str) -> dict[str, Any]:
    """Create a group of labelers."""
    body = read_object(request)
    emails, name = _string_list(body, "emails"), body.get("name")
    if not isinstance(name, str) or not name:
        raise invalid('"name" is required')
    with current_sandbox().store.write() as session:
        found = batch_actions.find_project(session, current_account(), project)
        if _find_group(session, found, name) is not None:
            raise ScaleError(409, f'A group with the name "{name}" already exists.')
        group = Group(
            id=object_id(),
            project_id=found.id,
            name=name,
            emails=list(dict.fromkeys(emails)),
            created_at=clock.now(),
        )
        session.add(group)
        return _group_object(session, group)


@team.put("/studio/projects/<name:project>/groups/<name:group>")
def update_group(project: str, group: str) -> dict[str, Any]:
    """Add and remove members of a group."""
    body = read_object(request)
    add, remove = _string_list(body, "add_emails"), _string_list(body, "remove_emails")
    with current_sandbox().store.write() as session:
        found = _find_group(session, batch_actions.find_project(session, current_account(), project), group)
        if found is None:
            raise ScaleError(404, f'Group "{group}" not found.')
        found.emails = [email for email in dict.fromkeys([*found.emails, *add]) if email not in remove]
        return _group_object(session, found)


@team.get("/studio/batches")
def list_studio_batches() -> Response:
    """List the open batches of Studio projects by priority."""
    with current_sandbox().store.read() as session:
        return jsonify(_studio_batches(session))


@team.put("/studio/batches/<name:batch>")
def assign_batch(batch: str) -> dict[str, Any]:
    """Set the groups of labelers that work on a batch."""
    groups = _string_list(read_object(request), "groups")
    with current_sandbox().store.write() as session:
        found = batch_actions.find_batch(session, current_account(), batch)
        project = batch_actions.find_project(session, current_account(), found.project)
        for name in groups:
            if _find_group(session, project, name) is None:
                raise ScaleError(404, f'Group "{name}" not found.')
        found.groups = groups
        return _studio_batch_object(session, found, project)


@team.post("/studio/batches/set_priorities")
def set_priorities() -> Response:
    """Give the named batches priority in this order; all others follow by age."""
    given = read_object(request).get("batches")
    if not isinstance(given, list) or not all(
        isinstance(b, dict) and isinstance(b.get("name"), str) for b in given
    ):
        raise invalid('"batches" must be an array of objects with "name"')
    with current_sandbox().store.write() as session:
        _clear_priorities(session)
        for position, entry in enumerate(given, 1):
            batch_actions.find_batch(session, current_account(), entry["name"]).studio_priority = position
        session.flush()
        return jsonify(_studio_batches(session))


@team.post("/studio/batches/reset_priorities")
def reset_priorities() -> Response:
    """Remove all priorities of Studio batches."""
    with current_sandbox().store.write() as session:
        _clear_priorities(session)
        session.flush()
        return jsonify(_studio_batches(session))


def _list_teammates(session: Session) -> list[Teammate]:
    """Return the members of the account's team; create its owner if it is empty."""
    mine = select(Teammate).where(Teammate.account == current_account())
    owner_first = mine.order_by(Teammate.email != OWNER, Teammate.created_at, Teammate.email)
    mates = list(session.scalars(owner_first))
    return mates or [_get_or_create_teammate(session, OWNER, "admin")]


def _get_or_create_teammate(session: Session, email: str, role: str = "labeler") -> Teammate:
    mate = session.get(Teammate, (current_account(), email))
    if mate is None:
        if email != OWNER:
            _get_or_create_teammate(session, OWNER, "admin")
        mate = Teammate(
            account=current_account(),
            email=email,
            id=object_id(),
            role=role,
            projects=[],
            created_at=clock.now(),
        )
        session.add(mate)
        session.flush()
    return mate


def _teammate_object(mate: Teammate) -> dict[str, Any]:
    return {
        "email": mate.email,
        "role": mate.role,
        "company": "Sandbox",
        "firstName": mate.email.partition("@")[0],
        "lastName": "",
        "isStudioLabeler": bool(mate.projects),
        "expiry": None,
    }


def _change_assignments(combine: Callable[[list[str], list[str]], list[str]]) -> dict[str, Any]:
    """Set the projects of members to the combination of their current ones and those of the body."""
    body = read_object(request)
    emails, projects = _string_list(body, "emails"), _string_list(body, "projects")
    with current_sandbox().store.write() as session:
        for name in projects:
            batch_actions.find_project(session, current_account(), name)
        _list_teammates(session)
        for email in emails:
            mate = session.get(Teammate, (current_account(), email))
            chosen = combine(mate.projects if mate else [], projects)
            if mate or chosen:
                _get_or_create_teammate(session, email).projects = chosen
        session.flush()
        return _assignments(session)


def _assignments(session: Session) -> dict[str, Any]:
    return {mate.email: mate.projects for mate in _list_teammates(session)}


def _find_group(session: Session, project: Project, name: str) -> Group | None:
    return session.scalar(select(Group).where(Group.project_id == project.id, Group.name == name))


def _group_object(session: Session, group: Group) -> dict[str, Any]:
    workers = [{"id": _get_or_create_teammate(session, email).id, "email": email} for email in group.emails]
    return {
        "id": group.id,
        "name": group.name,
        "numWorkers": len(workers),
        "isSingleton": False,
        "workers": workers,
    }


def _studio_batches(session: Session) -> list[dict[str, Any]]:
    """Return the open batches of Studio projects, by priority and then by age."""
    rows = session.execute(
        select(Batch, Project)
        .join(Project, (Project.account == Batch.account) & (Project.name == Batch.project))
        .where(
            Batch.account == current_account(),
            Project.studio,
            Batch.status.not_in(("completed", "cancelled")),
        )
        .order_by(Batch.studio_priority.is_(None), Batch.studio_priority, Batch.number)
    )
    return [_studio_batch_object(session, batch, project) for batch, project in rows]


def _studio_batch_object(session: Session, batch: Batch, project: Project) -> dict[str, Any]:
    counts = lifecycle.count_tasks(session, batch)
    kind = (
        "Calibration" if batch.calibration_batch else "SelfLabel" if batch.self_label_batch else "Production"
    )
    shown = {
        "id": batch.id,
        "name": batch.name,
        "projectId": project.id,
        "projectName": project.name,
        "batchType": kind,
        "total": counts.total,
        "completed": counts.total - counts.pending,
        "groups": batch.groups,
    }
    return shown if batch.studio_priority is None else {**shown, "studioPriority": batch.studio_priority}


def _clear_priorities(session: Session) -> None:
    for batch in session.scalars(
        select(Batch).where(Batch.account == current_account(), Batch.studio_priority.is_not(None))
    ):
        batch.studio_priority = None


def _string_list(body: dict[str, Any], name: str) -> list[str]:
    """Return an array of strings of the body; an absent one is empty. Raises ScaleError (400)."""
    texts = body.get(name) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise invalid(f'"{name}" must be an array of strings')
    return texts
