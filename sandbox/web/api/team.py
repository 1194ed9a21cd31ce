"""/v1/teams, /v1/evaluation_tasks, /v1/training_tasks and /v1/studio: what self-serve projects have besides."""

from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from sandbox.engine import batch_actions as deeds
from sandbox.engine import lifecycle
from sandbox.engine.parameters import check
from sandbox.engine.tasks import inherited_params
from sandbox.errors import ScaleError, invalid
from sandbox.storage import clock
from sandbox.storage.store import Batch, Group, Project, QualityTask, Teammate, object_id
from sandbox.web.api.calls import account, current_sandbox
from sandbox.web.bodies import read_object

team = Blueprint("team", __name__, url_prefix="/v1")

ROLES = ("labeler", "member", "manager", "admin")
OWNER = "owner@sandbox.example"


@team.get("/teams")
def list_teammates() -> Response:
    with current_sandbox().store.write() as session:
        return jsonify([_teammate_object(mate) for mate in _teammates(session)])


@team.post("/teams/invite")
@team.post("/teams/set_role")
def set_role() -> Response:
    """Give people a role; those who were not in the team are invited by that."""
    body = read_object(request)
    emails, role = _emails(body, "emails"), body.get("team_role")
    if role not in ROLES:
        raise invalid(f'"team_role" must be one of [{", ".join(ROLES)}]')
    with current_sandbox().store.write() as session:
        if request.path.endswith("set_role"):
            known = {mate.email for mate in _teammates(session)}
            for email in emails:
                if email not in known:
                    raise ScaleError(404, f'Teammate "{email}" not found.')
        for email in emails:
            _teammate(session, email).role = role
        return jsonify([_teammate_object(mate) for mate in _teammates(session)])


@team.post("/evaluation_tasks/<name:type_name>")
@team.post("/training_tasks/<name:type_name>")
def create_quality_task(type_name: str) -> dict[str, Any]:
    """A task whose answer is known, for the people of a self-serve project."""
    body = read_object(request)
    expected = body.pop("expected_response", None)
    initial = body.pop("initial_response", None)
    if expected is None:
        raise invalid('"expected_response" is required')
    with current_sandbox().store.write() as session:
        project, batch, inherited = inherited_params(session, account(), body)
        checked = check(type_name, body, inherited)
        kind = "evaluation" if "/evaluation_tasks/" in request.path else "training"
        now = clock.now()
        document = {
            "id": object_id(),
            "type": type_name,
            "created_at": clock.iso(now),
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
                account=account(),
                kind=kind,
                type=type_name,
                document=document,
                created_at=now,
            )
        )
    return document


@team.get("/studio/assignments")
def list_assignments() -> dict[str, Any]:
    with current_sandbox().store.write() as session:
        return _assignments(session)


@team.post("/studio/assignments/add")
def add_assignments() -> dict[str, Any]:
    return _change_assignments(
        lambda present, named: [*present, *(name for name in named if name not in present)]
    )


@team.post("/studio/assignments/remove")
def remove_assignments() -> dict[str, Any]:
    return _change_assignments(lambda present, named: [name for name in present if name not in named])


@team.get("/studio/projects/<name:project>/groups")
def list_groups(project: str) -> Response:
    with current_sandbox().store.write() as session:
        found = deeds.find_project(session, account(), project)
        groups = session.scalars(
            select(Group).where(Group.project_id == found.id).order_by(Group.created_at, Group.id)
        )
        return jsonify([_group_object(session, group) for group in groups])


@team.post("/studio/projects/<name:project>/groups")
def create_group(project: str) -> dict[str, Any]:
    body = read_object(request)
    emails, name = _emails(body, "emails"), body.get("name")
    if not isinstance(name, str) or not name:
        raise invalid('"name" is required')
    with current_sandbox().store.write() as session:
        found = deeds.find_project(session, account(), project)
        if _group(session, found, name) is not None:
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
    body = read_object(request)
    add, remove = _emails(body, "add_emails"), _emails(body, "remove_emails")
    with current_sandbox().store.write() as session:
        found = _group(session, deeds.find_project(session, account(), project), group)
        if found is None:
            raise ScaleError(404, f'Group "{group}" not found.')
        found.emails = [email for email in dict.fromkeys([*found.emails, *add]) if email not in remove]
        return _group_object(session, found)


@team.get("/studio/batches")
def list_studio_batches() -> Response:
    with current_sandbox().store.read() as session:
        return jsonify(_studio_batches(session))


@team.put("/studio/batches/<name:batch>")
def assign_batch(batch: str) -> dict[str, Any]:
    """Set the groups of labelers that work on a batch."""
    groups = _emails(read_object(request), "groups")
    with current_sandbox().store.write() as session:
        found = deeds.find_batch(session, account(), batch)
        project = deeds.find_project(session, account(), found.project)
        for name in groups:
            if _group(session, project, name) is None:
                raise ScaleError(404, f'Group "{name}" not found.')
        found.groups = groups
        return _studio_batch_object(session, found, project)


@team.post("/studio/batches/set_priorities")
def set_priorities() -> Response:
    """Put the named batches first, in this order; all others follow by age."""
    named = read_object(request).get("batches")
    if not isinstance(named, list) or not all(
        isinstance(b, dict) and isinstance(b.get("name"), str) for b in named
    ):
        raise invalid('"batches" must be an array of objects with "name"')
    with current_sandbox().store.write() as session:
        _forget_priorities(session)
        for position, entry in enumerate(named, 1):
            deeds.find_batch(session, account(), entry["name"]).studio_priority = position
        session.flush()
        return jsonify(_studio_batches(session))


@team.post("/studio/batches/reset_priorities")
def reset_priorities() -> Response:
    with current_sandbox().store.write() as session:
        _forget_priorities(session)
        session.flush()
        return jsonify(_studio_batches(session))


def _teammates(session: Session) -> list[Teammate]:
    """Everyone in the account's team, which has an owner from the start."""
    mine = select(Teammate).where(Teammate.account == account())
    owner_first = mine.order_by(Teammate.email != OWNER, Teammate.created_at, Teammate.email)
    mates = list(session.scalars(owner_first))
    return mates or [_teammate(session, OWNER, "admin")]


def _teammate(session: Session, email: str, role: str = "labeler") -> Teammate:
    mate = session.get(Teammate, (account(), email))
    if mate is None:
        if email != OWNER:
            _teammate(session, OWNER, "admin")
        mate = Teammate(
            account=account(), email=email, id=object_id(), role=role, projects=[], created_at=clock.now()
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


def _change_assignments(choose: Any) -> dict[str, Any]:
    body = read_object(request)
    emails, projects = _emails(body, "emails"), _emails(body, "projects")
    with current_sandbox().store.write() as session:
        for name in projects:
            deeds.find_project(session, account(), name)
        _teammates(session)
        for email in emails:
            mate = session.get(Teammate, (account(), email))
            chosen = choose(mate.projects if mate else [], projects)
            if mate or chosen:
                _teammate(session, email).projects = chosen
        session.flush()
        return _assignments(session)


def _assignments(session: Session) -> dict[str, Any]:
    return {mate.email: mate.projects for mate in _teammates(session)}


def _group(session: Session, project: Project, name: str) -> Group | None:
    return session.scalar(select(Group).where(Group.project_id == project.id, Group.name == name))


def _group_object(session: Session, group: Group) -> dict[str, Any]:
    workers = [{"id": _teammate(session, email).id, "email": email} for email in group.emails]
    return {
        "id": group.id,
        "name": group.name,
        "numWorkers": len(workers),
        "isSingleton": False,
        "workers": workers,
    }


def _studio_batches(session: Session) -> list[dict[str, Any]]:
    """The batches of Studio projects that are not done, by priority and then by age."""
    rows = session.execute(
        select(Batch, Project)
        .join(Project, (Project.account == Batch.account) & (Project.name == Batch.project))
        .where(Batch.account == account(), Project.studio, Batch.status.not_in(("completed", "cancelled")))
        .order_by(Batch.studio_priority.is_(None), Batch.studio_priority, Batch.number)
    )
    return [_studio_batch_object(session, batch, project) for batch, project in rows]


def _studio_batch_object(session: Session, batch: Batch, project: Project) -> dict[str, Any]:
    total, pending = lifecycle.open_tasks(session, batch)
    kind = (
        "Calibration" if batch.calibration_batch else "SelfLabel" if batch.self_label_batch else "Production"
    )
    shown = {
        "id": batch.id,
        "name": batch.name,
        "projectId": project.id,
        "projectName": project.name,
        "batchType": kind,
        "total": total,
        "completed": total - pending,
        "groups": batch.groups,
    }
    return shown if batch.studio_priority is None else {**shown, "studioPriority": batch.studio_priority}


def _forget_priorities(session: Session) -> None:
    for batch in session.scalars(
        select(Batch).where(Batch.account == account(), Batch.studio_priority.is_not(None))
    ):
        batch.studio_priority = None


def _emails(body: dict[str, Any], name: str) -> list[str]:
    """An array of texts in the body; left out, it is empty."""
    texts = body.get(name) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise invalid(f'"{name}" must be an array of strings')
    return texts
